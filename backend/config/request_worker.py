"""gunicorn's worker with threads, where a thread is given to a request and not to a connection.

gunicorn's own `gthread` gives a thread to a connection at its first byte, and lets it wait for the rest of the header
for as long as that takes. Here the main thread collects headers and small bodies from all connections at once, with a
deadline for each request, and closes connections in the same way. It never waits for a client itself.
"""

import json
import re
import selectors
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from errno import EAGAIN, ECONNABORTED, EMFILE, ENFILE
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from config.env import Web, read
from config.paced_socket import Pace, PacedSocket

PROBES = (b"/healthz", b"/readyz", b"/metrics")
PROBE_THREADS = 2
PROBE_PLACES = 16
# What a probe answers fits into it, so that a probe's thread never waits for a client.
PROBE_SEND_BUFFER_BYTES = 1 << 20
UPLOADS = b"/api/ingest/"

HEADER_END = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
DIGITS_MAX = 19
HEADER_MAX_BYTES = 64 << 10
PIECE_BYTES = 64 << 10
LINGER_S = 2.0
RETRY_AFTER_S = 5


class Lane:
    """Threads for some of the requests, and a bound of how many may wait for them."""

    def __init__(self, pool: ThreadPoolExecutor, places: int) -> None:
        self.pool, self._places = pool, places
        self._requests = 0

    @property
    def is_full(self) -> bool:
        """True if another request would have to wait behind too many."""
        return self._requests >= self._places

    def enter(self) -> None:
        """Count a request that is handed to the threads."""
        self._requests += 1

    def leave(self) -> None:
        """Count one that has been answered."""
        self._requests -= 1


class Refusal(Exception):
    """A request that no thread needs to see."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status

    def response(self) -> bytes:
        """Return the answer: a problem document, as everywhere in the API."""
        document = {"type": "about:blank", "title": self.status.phrase, "status": self.status, "detail": str(self)}
        body = json.dumps(document, indent=2).encode()
        head = [f"HTTP/1.1 {self.status} {self.status.phrase}", "Connection: close"]
        head += ["Content-Type: application/problem+json", f"Content-Length: {len(body)}"]
        if self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            head.append(f"Retry-After: {RETRY_AFTER_S}")
        return "\r\n".join([*head, "", ""]).encode() + body


class Head:
    """A request's line and header, as far as the main thread looks at them; the parser has the last word."""

    _LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
    _CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
    _CONTINUE = re.compile(rb"\r\nexpect:[ \t]*100-continue", re.IGNORECASE)

    def __init__(self, header: bytes) -> None:
        self.method, _, rest = header.partition(b" ")
        self.path = re.split(rb"[ ?]", rest, maxsplit=1)[0]
        length = self._LENGTH.search(header)
        self.body_bytes = int(length[1][:DIGITS_MAX]) if length else 0
        self.is_chunked = bool(self._CHUNKED.search(header))
        self.expects_continue = bool(self._CONTINUE.search(header))

    @property
    def is_upload(self) -> bool:
        """True if the application reads the body piece by piece."""
        return self.method == b"POST" and self.path == UPLOADS

    @property
    def is_probe(self) -> bool:
        """True if it has its own threads."""
        has_body = self.body_bytes > 0 or self.is_chunked
        return self.method in (b"GET", b"HEAD") and self.path in PROBES and not has_body

    def require_bounded_body(self, limit_bytes: int) -> None:
        """Refuse a body for which a thread would have to wait.

        Raises:
            Refusal: 411, its length is not known; 413, it is too large to be collected.
        """
        if self.is_upload:
            return
        if self.is_chunked:
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "only uploads may be sent in chunks; send a Content-Length")
        if self.body_bytes > limit_bytes:
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has {self.body_bytes:,} bytes, allowed: {limit_bytes:,} (WEB_BODY_MAX_BYTES)",
            )


class Connection(TConn):  # type: ignore[misc]
    """A client's connection, and what it has sent of its next request."""

    def __init__(self, cfg: Any, sock: PacedSocket, client: Any, server: Any) -> None:
        super().__init__(cfg, sock, client, server)
        self.received = bytearray()
        self.head: Head | None = None
        self.body_at = 0
        self.lane: Lane
        self.expires_at = 0.0
        self.init()  # the parser; without TLS it asks nothing of the client
        self.sock.setblocking(False)

    def take_in(self, piece: bytes, body_max_bytes: int) -> Head | None:
        """Add what has arrived; return the request's head once a thread can take it.

        Raises:
            Refusal: the header or the body is too large.
        """
        searched = max(0, len(self.received) - len(HEADER_END))
        self.received += piece
        if self.head is None:
            self._look_for_head(searched, body_max_bytes)
        if self.head is None:
            return None
        is_complete = self.head.is_upload or len(self.received) >= self.body_at + self.head.body_bytes
        return self.head if is_complete else None

    def _look_for_head(self, searched: int, body_max_bytes: int) -> None:
        end = self.received.find(HEADER_END, searched)
        size_bytes = end + len(HEADER_END) if end >= 0 else len(self.received)
        if size_bytes > HEADER_MAX_BYTES:
            detail = f"the header has more than {HEADER_MAX_BYTES:,} bytes"
            raise Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)
        if end < 0:
            return
        self.body_at = size_bytes
        self.head = Head(bytes(self.received[:size_bytes]))
        self.head.require_bounded_body(body_max_bytes)
        if self.head.expects_continue and not self.head.is_upload:  # an upload's thread says so itself
            with suppress(OSError):
                self.sock.send(CONTINUE)

    def hand_over(self) -> None:
        """Give the parser what has been received."""
        self.parser.unreader.unread(bytes(self.received))
        self.received, self.head = bytearray(), None


class RequestWorker(ThreadWorker):  # type: ignore[misc]
    """The web's worker. Its own state belongs to the main thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._web = read(Web)
        self.worker_connections = self._web.web_connections
        # Connections without a thread: they send a request, are kept alive, or are about to be closed. Oldest first.
        self._idle: dict[Connection, None] = {}
        self._is_stopping = False

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Refuse TLS, whose handshake would need a thread of its own."""
        if cfg.is_ssl:
            raise SystemExit("this worker does not speak TLS: use a proxy in front of it")
        super().check_config(cfg, log)

    def init_process(self) -> None:
        """Start the threads, then serve."""
        self._probes = {path: Lane(ThreadPoolExecutor(PROBE_THREADS), PROBE_PLACES) for path in PROBES}
        super().init_process()

    def get_thread_pool(self) -> ThreadPoolExecutor:
        """Return the threads of all requests but probes; half of the connections may have a request there."""
        pool = ThreadPoolExecutor(self.cfg.threads)
        self._ordinary = Lane(pool, self.cfg.threads + self.worker_connections // 2)
        return pool

    def accept(self, listener: Any) -> None:
        """Accept a connection; if there are too many, the one that has been idle for longest has to go."""
        try:
            sock, address = listener.accept()
        except OSError as error:
            if error.errno in (EMFILE, ENFILE):
                self._close_oldest()
            elif error.errno not in (EAGAIN, ECONNABORTED):
                raise
            return
        pace = Pace(self._web.web_client_idle_s, self._web.web_client_bytes_per_s)
        self.nr_conns += 1
        conn = Connection(self.cfg, PacedSocket(sock, pace), address, listener.getsockname())
        self._await_request(conn, self._web.web_request_timeout_s)
        if self.nr_conns >= self.worker_connections:
            self._close_oldest()

    def finish_request(self, conn: Connection, answered: "Future[bool]") -> None:
        """Wait for the next request on a connection, or close it, after a thread has answered."""
        conn.lane.leave()
        is_kept = not answered.cancelled() and answered.exception() is None and answered.result()
        if not is_kept:
            self._linger(conn)
            return
        self._await_request(conn, self.cfg.keepalive)
        if early := conn.parser.unreader.take_buffered():
            self._take_in(conn, early)

    def murder_pending(self) -> None:
        """Close what has waited for too long; gunicorn calls this every second."""
        now = time.monotonic()
        if not self.alive and not self._is_stopping:
            self._is_stopping = True
            for conn in self._idle:
                conn.expires_at = min(conn.expires_at, now + LINGER_S)
        for conn in [conn for conn in self._idle if conn.expires_at <= now]:
            if conn.received:
                timeout_s = self._web.web_request_timeout_s
                detail = f"the request was not complete after {timeout_s:g} s (WEB_REQUEST_TIMEOUT_S)"
                self._refuse(conn, Refusal(HTTPStatus.REQUEST_TIMEOUT, detail))
            else:
                self._close(conn)

    def _await_request(self, conn: Connection, timeout_s: float) -> None:
        conn.sock.setblocking(False)
        self._watch(conn, timeout_s, self._receive)

    def _receive(self, conn: Connection, _: socket.socket) -> None:
        piece = self._piece_of(conn)
        if piece == b"":
            self._close(conn)
        elif piece:
            self._take_in(conn, piece)

    def _take_in(self, conn: Connection, piece: bytes) -> None:
        if not conn.received:
            conn.expires_at = time.monotonic() + self._web.web_request_timeout_s
        try:
            if (head := conn.take_in(piece, self._web.web_body_max_bytes)) is not None:
                self._hand_over(conn, head)
        except Refusal as refusal:
            self._refuse(conn, refusal)

    def _hand_over(self, conn: Connection, head: Head) -> None:
        """Give a request to a thread.

        Raises:
            Refusal: 503, too many wait for one.
        """
        conn.lane = self._probes[head.path] if head.is_probe else self._ordinary
        if conn.lane.is_full:
            detail = f"too many requests wait to be answered; try again in {RETRY_AFTER_S} s"
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, detail)
        if head.is_probe:
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PROBE_SEND_BUFFER_BYTES)
        self._unwatch(conn)
        conn.lane.enter()
        conn.sock.set_pace(self._web.web_client_idle_s, self._web.web_client_bytes_per_s)
        conn.hand_over()
        future = conn.lane.pool.submit(self.handle, conn)
        future.add_done_callback(lambda answered: self.method_queue.defer(self.finish_request, conn, answered))

    def _refuse(self, conn: Connection, refusal: Refusal) -> None:
        self.log.info("refused a request of %s: %s", conn.client, refusal)
        conn.received.clear()
        with suppress(OSError):
            conn.sock.send(refusal.response())
        self._unwatch(conn)
        self._linger(conn)

    def _linger(self, conn: Connection) -> None:
        """Close a connection from this end, and wait a moment for the client to do the same.

        Closed at once, with bytes left to read, it would be reset before the client has read the answer: RFC 9112, 9.6.
        """
        conn.sock.setblocking(False)
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        self._watch(conn, LINGER_S, self._drain)

    def _drain(self, conn: Connection, _: socket.socket) -> None:
        if self._piece_of(conn) == b"":
            self._close(conn)

    def _piece_of(self, conn: Connection) -> bytes | None:
        """Return what has arrived; nothing if the connection has ended, None if there is nothing yet."""
        if conn not in self._idle:  # closed by the callback of another event of the same look at the poller
            return None
        try:
            piece: bytes = conn.sock.recv(PIECE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        return piece

    def _watch(self, conn: Connection, timeout_s: float, react: Any) -> None:
        if not self.alive:
            timeout_s = min(timeout_s, LINGER_S)
        conn.expires_at = time.monotonic() + timeout_s
        self._idle[conn] = None
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(react, conn))

    def _unwatch(self, conn: Connection) -> None:
        if conn in self._idle:
            del self._idle[conn]
            self.poller.unregister(conn.sock)

    def _close_oldest(self) -> None:
        for conn in list(self._idle)[:1]:
            self._close(conn)

    def _close(self, conn: Connection) -> None:
        self._unwatch(conn)
        self.nr_conns -= 1
        conn.close()
