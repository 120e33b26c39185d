"""Slow clients: the web closes their connections in the end, and answers all other clients meanwhile."""

import http.client
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from config.env import Database, read
from sandbox.isolation import connect
from sandbox.stack import Stack
from tests.acceptance.conftest import reader, started
from tests.acceptance.test_http import CSV, Answer, Client, answer_of, answer_on, assert_problem, until

PROBES = ("/healthz", "/readyz", "/metrics")
THREADS = 4
DEADLINE_S = 60
HALF_A_HEADER = b"GET /api/jobs/ HTTP/1.1\r\nHost: localhost\r\nX-Slow: "


@pytest.fixture(scope="module")
def client(make_stack: Callable[..., Stack]) -> Iterator[Client]:
    stack = make_stack(
        WEB_PROCESSES="1",
        WEB_THREADS=str(THREADS),
        WEB_CONNECTIONS="128",
        WEB_REQUEST_TIMEOUT_S="5",
        WEB_CLIENT_IDLE_S="3",
        INGEST_INPUT_GRACE_S="0",
        INGEST_CLEAN_INTERVAL_S="1",
        INGEST_UPLOAD_IDLE_S="3",
    )
    with started(stack) as running:
        yield Client(running, running.manage("create_token", "tests").stdout.strip())


def assert_probes_answer(client: Client) -> None:
    for _ in range(5):
        assert [client.ask("GET", probe, **reader()).status for probe in PROBES] == [200, 200, 200]


@contextmanager
def connections(client: Client, count: int, first: bytes) -> Iterator[list[socket.socket]]:
    """Open connections that send the same beginning."""
    with ExitStack() as opened:
        sockets = [
            opened.enter_context(socket.create_connection(("127.0.0.1", client.port), timeout=DEADLINE_S))
            for _ in range(count)
        ]
        for one in sockets:
            one.sendall(first)
        yield sockets


def rest_of(connection: socket.socket) -> bytes:
    """Return everything that the server sends until it closes the connection."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


@contextmanager
def trickle(sockets: list[socket.socket], piece: bytes = b"x") -> Iterator[None]:
    """Send a few bytes on every connection repeatedly, as long as the server accepts them."""
    over = threading.Event()

    def send() -> None:
        left = list(sockets)
        while left and not over.wait(0.2):
            for one in list(left):
                try:
                    one.sendall(piece)
                except OSError:
                    left.remove(one)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()


@pytest.mark.parametrize("first", [HALF_A_HEADER, b"GET", b""], ids=["half a header", "half a line", "nothing"])
def test_incomplete_requests_do_not_delay_others_and_are_closed(client: Client, first: bytes) -> None:
    with connections(client, 40, first) as sockets:
        assert_probes_answer(client)
        assert client.ask("GET", "/api/jobs/").status == 200
        for one in sockets:
            rest = rest_of(one)
            assert rest.startswith(b"HTTP/1.1 408 Request Timeout\r\n") if first else rest == b""


def test_a_header_that_arrives_byte_by_byte_has_one_deadline(client: Client) -> None:
    with connections(client, 40, HALF_A_HEADER) as sockets, trickle(sockets):
        assert_probes_answer(client)
        assert client.ask("GET", "/api/jobs/").status == 200
        for one in sockets:
            rest_of(one)


def test_an_incomplete_small_body_does_not_occupy_a_thread(client: Client) -> None:
    head = b"POST /admin/login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\nusername="
    with connections(client, 40, head) as sockets:
        assert client.ask("GET", "/api/jobs/").status == 200
        for one in sockets:
            assert rest_of(one).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("status", "header"),
    [(413, b"Content-Length: 70000"), (411, b"Transfer-Encoding: chunked"), (431, b"X-Long: " + b"x" * 70000)],
)
def test_a_body_that_a_thread_would_wait_for_is_refused_immediately(client: Client, status: int, header: bytes) -> None:
    with connections(client, 1, b"POST /admin/login/ HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n") as (one,):
        refused = answer_on(one)
        assert (refused.status, refused.document["status"]) == (status, status)


def test_a_client_that_expects_100_continue_gets_it_before_a_small_body(client: Client) -> None:
    head = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    with connections(client, 1, head) as (one,):
        assert one.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        one.sendall(b"a=1")
        answer = http.client.HTTPResponse(one)
        answer.begin()  # it passes over the second word of the same kind, which the thread says
        assert answer.status == 404


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    each = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with connections(client, 1, each * 2 + last) as (one,):
        assert rest_of(one).count(b"HTTP/1.1 200 OK") == 3


def test_clients_that_do_not_close_their_end_do_not_delay_others(client: Client) -> None:
    with connections(client, 60, b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"):
        assert_probes_answer(client)
        assert client.ask("GET", "/api/jobs/").status == 200


def test_above_the_limit_of_connections_the_oldest_is_closed(client: Client) -> None:
    with connections(client, 100, b"") as older, connections(client, 100, b"") as younger:
        assert_probes_answer(client)
        for one in older + younger:
            assert rest_of(one) == b""


def test_probes_are_answered_while_every_thread_is_busy(client: Client) -> None:
    name = client.running.stack.variables["DB_NAME"]
    locker, observer = (connect(read(Database), name=name) for _ in range(2))
    observer.autocommit = True

    def waiting() -> int:
        with observer.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'api_tokenjob'::regclass")
            (count,) = cursor.fetchone()
            return int(count)

    def ask(_: int) -> Answer:
        return client.ask("GET", "/api/jobs/")

    try:
        with ThreadPoolExecutor(3 * THREADS) as askers:
            with locker, locker.cursor() as cursor:
                cursor.execute("LOCK TABLE api_tokenjob IN ACCESS EXCLUSIVE MODE")
                asked = [askers.submit(ask, number) for number in range(3 * THREADS)]
                until(waiting, lambda count: count == THREADS)
                assert_probes_answer(client)
            assert {one.result().status for one in asked} == {200}
    finally:
        locker.close()
        observer.close()


def test_uploads_may_use_only_some_of_the_threads(client: Client) -> None:
    with ExitStack() as opened:
        slow = [opened.enter_context(client.open_upload(len(CSV), CSV[:1000])) for _ in range(THREADS // 2)]
        with trickle(slow, CSV[:5000]):  # quick enough to be left alone
            until(lambda: len(client.spooled()) == THREADS // 2)
        refused = client.upload(CSV)
        assert_problem(refused, 503, f"this process is already receiving {THREADS // 2} uploads")
        assert refused.headers["Retry-After"]
        assert client.ask("GET", "/api/jobs/").status == 200
        for one in slow:
            answer_on(one)
    until(lambda: client.spooled() == [])
    assert until(lambda: client.upload(CSV), lambda answer: answer.status != 503).status == 202


def test_an_upload_below_the_minimum_rate_is_disconnected(client: Client) -> None:
    with client.open_upload(len(CSV) * 1000, CSV[:1000]) as slow:
        until(lambda: len(client.spooled()) == 1)
        with trickle([slow]):
            assert_problem(answer_on(slow), 400, "by more than 3 s")
    until(lambda: client.spooled() == [])


def test_clients_that_do_not_read_the_response_are_disconnected(client: Client) -> None:
    line = b"soon,a,%d" + b" " * 2000 + b"\n"
    accepted = client.upload(CSV + b"".join(line % number for number in range(5_000)))
    assert accepted.status == 202, accepted.body
    job = client.finished(accepted.headers["Location"])
    assert job["rejected"] == 5_000
    with ExitStack() as opened:
        deaf = [opened.enter_context(_deaf(client, job["rejects_url"])) for _ in range(2 * THREADS)]
        assert client.ask("GET", "/api/jobs/").status == 200  # every thread has become free for it once
        read = [answer_until_it_breaks_off(one).count(b"\n") for one in deaf]
    assert sum(count < 5_000 for count in read) >= THREADS, read


def test_a_stopping_worker_does_not_wait_for_incomplete_requests(client: Client) -> None:
    (worker,) = {int(report.pid) for report in client.running.stack.reports() if report.service == "web"}
    with connections(client, 20, HALF_A_HEADER) as sockets:
        assert_probes_answer(client)  # so that it has accepted those before
        os.kill(worker, signal.SIGTERM)
        for one in sockets:
            assert rest_of(one).startswith(b"HTTP/1.1 408 ")
    until(lambda: not Path(f"/proc/{worker}").exists())
    assert_probes_answer(client)


def _deaf(client: Client, path: str) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(DEADLINE_S)
    connection.connect(("127.0.0.1", client.port))
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {client.token}\r\n\r\n".encode()
    )
    return connection


def answer_until_it_breaks_off(connection: socket.socket) -> bytes:
    response = http.client.HTTPResponse(connection)
    response.begin()
    try:
        return answer_of(response).body
    except http.client.IncompleteRead as error:
        return error.partial
    except ConnectionResetError:
        return b""
