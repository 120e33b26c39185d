"""The web's connections: when a request is complete, what is refused, and how slow a client may be."""

import socket
from collections.abc import Iterator

import pytest
from django.urls import resolve, reverse
from gunicorn.config import Config  # type: ignore[import-untyped]

from config.connections import HEADER_MAX_BYTES, PROBES, UPLOADS, Connection, Head, Refusal
from config.paced_socket import Pace, PacedSocket, SlowClientError
from config.request_worker import RequestWorker

BODY_MAX_BYTES = 100


@pytest.fixture
def pair() -> Iterator[tuple[PacedSocket, socket.socket]]:
    """The two ends of a connection, the server's end first."""
    server, client = socket.socketpair()
    with PacedSocket(server, Pace(idle_s=0.2, bytes_per_s=1000)) as paced, client:
        yield paced, client


@pytest.fixture
def connection(pair: tuple[PacedSocket, socket.socket]) -> Connection:
    return Connection(Config(), pair[0], ("127.0.0.1", 1), ("127.0.0.1", 2))


def test_probes_and_uploads_have_the_paths_of_their_views() -> None:
    assert (reverse("api:ingest").encode(), reverse("api:ingest-without-slash").encode()) == UPLOADS
    for probe in PROBES:
        assert resolve(probe.decode())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_request_is_complete_with_its_body_however_it_is_split(connection: Connection, size: int) -> None:
    request = b"POST /admin/login/?next=/ HTTP/1.1\r\nHost: a\r\ncontent-length:  5 \r\n\r\n12345"
    pieces = [request[at : at + size] for at in range(0, len(request), size)]
    heads = [connection.take_in(piece, BODY_MAX_BYTES) for piece in pieces]
    assert [head is not None for head in heads] == [False] * (len(pieces) - 1) + [True]
    assert heads[-1] is not None
    assert (heads[-1].method, heads[-1].path, heads[-1].body_bytes) == (b"POST", b"/admin/login/", 5)
    connection.hand_over()
    assert connection.received == b""
    assert connection.parser.unreader.take_buffered() == request


@pytest.mark.parametrize(
    "header", [b"Content-Length: 10000000000", b"Transfer-Encoding: chunked", b"Content-Length: 1"]
)
def test_an_upload_is_complete_with_its_header(connection: Connection, header: bytes) -> None:
    head = connection.take_in(b"POST /api/ingest/?time=t HTTP/1.1\r\n" + header + b"\r\n\r\n", BODY_MAX_BYTES)
    assert head is not None
    assert head.is_upload


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (413, b"POST /api/jobs/ HTTP/1.1\r\nContent-Length: 101\r\n\r\n"),
        (413, b"GET /api/ingest/ HTTP/1.1\r\nContent-Length: 101\r\n\r\n"),
        (413, b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 10_000 + b"\r\n\r\n"),
        (411, b"GET /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (431, b"GET /" + b"x" * HEADER_MAX_BYTES),
        (431, b"GET / HTTP/1.1\r\nX: " + b"x" * HEADER_MAX_BYTES + b"\r\n\r\n"),
    ],
)
def test_a_body_that_would_make_a_thread_wait_is_refused(connection: Connection, status: int, text: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        connection.take_in(text, BODY_MAX_BYTES)
    assert refused.value.status == status
    assert refused.value.response().startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize(
    ("is_probe", "text"),
    [
        (True, b"GET /healthz HTTP/1.1\r\n\r\n"),
        (True, b"HEAD /metrics?name=a HTTP/1.1\r\n\r\n"),
        (True, b"GET /readyz HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
        (False, b"GET /healthzz HTTP/1.1\r\n\r\n"),
        (False, b"POST /healthz HTTP/1.1\r\n\r\n"),
        (False, b"GET /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\n"),
        (False, b"nonsense\r\n\r\n"),
    ],
)
def test_a_probe_is_a_get_or_head_without_a_body(is_probe: bool, text: bytes) -> None:
    assert Head(text).is_probe == is_probe


def test_tls_is_refused_with_the_advice_to_use_a_proxy() -> None:
    config = Config()
    config.set("certfile", "cert.pem")
    with pytest.raises(SystemExit, match="does not support TLS"):
        RequestWorker.check_config(config, None)


def test_more_connections_than_open_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (512, 1024))
    with pytest.raises(
        SystemExit,
        match=r"WEB_CONNECTIONS=512: expected 256 or less, because a process may open 512 files \(ulimit -n\)",
    ):
        RequestWorker.check_config(Config(), None)


def test_waiting_reduces_the_pace_s_time_and_bytes_restore_it_up_to_its_start() -> None:
    pace = Pace(idle_s=10, bytes_per_s=100)
    pace.spend(4, 0)
    assert pace.left_s == 6
    pace.spend(1, 300)
    assert pace.left_s == 8
    pace.spend(1, 10**9)
    assert pace.left_s == 10, "bytes sent in advance must not extend the idle limit"
    for _ in range(9):
        pace.spend(1, 1)
    assert 0 < pace.left_s < 1.1


def test_a_silent_client_is_disconnected(pair: tuple[PacedSocket, socket.socket]) -> None:
    paced, client = pair
    client.send(b"first")
    assert paced.recv(100) == b"first"
    with pytest.raises(
        SlowClientError,
        match=r"the client is too slow: it has fallen behind the minimum of [\d,]+ bytes/s by more than 0\.2 s",
    ):
        paced.recv(100)
    assert issubclass(SlowClientError, ConnectionResetError), "which gunicorn takes for a client that has gone"


def test_a_client_that_reads_nothing_is_disconnected(pair: tuple[PacedSocket, socket.socket]) -> None:
    with pytest.raises(SlowClientError):
        pair[0].sendall(b"x" * 100_000_000)


def test_all_bytes_are_sent_to_a_client_that_reads_them(pair: tuple[PacedSocket, socket.socket]) -> None:
    paced, client = pair
    paced.set_pace(60, 1)
    paced.sendall(b"abc" * 1000)
    paced.setblocking(False)
    with pytest.raises(BlockingIOError):
        paced.recv(1)
    assert client.recv(3000, socket.MSG_WAITALL) == b"abc" * 1000


def test_a_timeout_shorter_than_the_pace_applies(pair: tuple[PacedSocket, socket.socket]) -> None:
    paced, _ = pair
    paced.set_pace(60, 1)
    paced.settimeout(0.05)
    assert paced.gettimeout() == 0.05
    with pytest.raises(TimeoutError):
        paced.recv(1)
