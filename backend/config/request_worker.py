"""gunicorn's threaded worker, changed so that a thread is assigned to a complete request and not to a connection.

gunicorn's `gthread` assigns a thread at a connection's first byte, and the thread waits for the rest of the header
without a limit. Here the main thread collects headers and small bodies of all connections, with a deadline for each
request, and also closes connections. It never blocks on a client.
"""

import resource
import selectors
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from errno import EAGAIN, ECONNABORTED, EMFILE, ENFILE
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn import util  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from config.connections import PROBES, RETRY_AFTER_S, Connection, Head, Refusal, refusal_of
from config.env import Web, read
from config.paced_socket import Pace, PacedSocket

PROBE_THREADS = 2
PROBE_REQUESTS_MAX = 16
# The response to a probe fits into it, so that a probe's thread never waits for a client.
PROBE_SEND_BUFFER_BYTES = 1 << 20
PIECE_BYTES = 64 << 10
LINGER_S = 2.0
OTHER_FILES = 256


class Lane:
    """Threads for one kind of requests, and a limit on how many run or wait there."""

    def __init__(self, pool: ThreadPoolExecutor, requests_max: int) -> None:
        self.pool, self._requests_max = pool, requests_max
        self._requests = 0

    @property
    def is_full(self) -> bool:
        """Return True if no further request may wait for a thread."""
        return self._requests >= self._requests_max

    def enter(self) -> None:
        """Count a request that is passed to the threads."""
        self._requests += 1

    def leave(self) -> None:
        """Count a request that has been answered."""
        self._requests -= 1


class RequestWorker(ThreadWorker):  # type: ignore[misc]
    """The web's gunicorn worker. Only the main thread changes its state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._web = read(Web)
        self.worker_connections = self._web.web_connections
        # Connections without a thread, oldest first: they send a request, are kept alive, or are being closed.
        self._idle: dict[Connection, None] = {}
        self._is_stopping = False

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Refuse TLS, whose handshake would block the main thread, and more connections than files may be open."""
        if cfg.is_ssl:
            raise SystemExit("config.request_worker does not support TLS: terminate TLS in a proxy in front of the web")
        connections, (files, _) = read(Web).web_connections, resource.getrlimit(resource.RLIMIT_NOFILE)
        if files < connections + OTHER_FILES:
            raise SystemExit(
                f"WEB_CONNECTIONS={connections}: expected {files - OTHER_FILES} or less, because a process may open "
                f"{files} files (ulimit -n) and needs {OTHER_FILES} of them for other purposes; "
                "reduce WEB_CONNECTIONS, or raise the limit"
            )
        super().check_config(cfg, log)

    def init_process(self) -> None:
        """Start the threads for probes, then serve."""
        self._probes = {path: Lane(ThreadPoolExecutor(PROBE_THREADS), PROBE_REQUESTS_MAX) for path in PROBES}
        super().init_process()

    def get_thread_pool(self) -> ThreadPoolExecutor:
        """Return the threads for all requests except probes; half of the connections may wait for them."""
        pool = ThreadPoolExecutor(self.cfg.threads)
        self._ordinary = Lane(pool, self.cfg.threads + self.worker_connections // 2)
        return pool

    def accept(self, listener: Any) -> None:
        """Accept a connection; at the limit, close the one that has been idle longest."""
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

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer a request that cannot be parsed, or that failed in the application, with a problem document."""
        if (refusal := refusal_of(exc)) is not None:
            self.log.warning("refused a request of %s: %s", addr, refusal)
        else:
            self.log.error("unhandled error in a request", exc_info=exc)
            detail = "internal error; the server's log has the reason"
            refusal = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, detail)
        with suppress(OSError):
            util.write_nonblock(client, refusal.response())

    def murder_pending(self) -> None:
        """Close connections whose deadline has passed; gunicorn calls this every second."""
        now = time.monotonic()
        if not self.alive and not self._is_stopping:
            self._is_stopping = True
            for conn in self._idle:
                conn.expires_at = min(conn.expires_at, now + LINGER_S)
        for conn in [conn for conn in self._idle if conn.expires_at <= now]:
            if conn.received:
                timeout_s = self._web.web_request_timeout_s
                detail = f"the request was not complete within {timeout_s:g} s (WEB_REQUEST_TIMEOUT_S)"
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
        """Pass a request to a thread.

        Raises:
            Refusal: 503, too many requests wait for a thread.
        """
        lane = self._probes[head.path] if head.is_probe else self._ordinary
        if lane.is_full:
            detail = f"too many requests are waiting for a thread; try again in {RETRY_AFTER_S} s"
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, detail)
        if head.is_probe:
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PROBE_SEND_BUFFER_BYTES)
        self._unwatch(conn)
        lane.enter()
        conn.sock.set_pace(self._web.web_client_idle_s, self._web.web_client_bytes_per_s)
        conn.hand_over()
        future = lane.pool.submit(self.handle, conn)
        future.add_done_callback(partial(self.method_queue.defer, self._finish, conn, lane))

    def _finish(self, conn: Connection, lane: Lane, answered: "Future[bool]") -> None:
        """After a thread has answered, wait for the next request on the connection, or close it."""
        lane.leave()
        is_kept = not answered.cancelled() and answered.exception() is None and answered.result()
        if not is_kept:
            self._linger(conn)
            return
        self._await_request(conn, self.cfg.keepalive)
        if early := conn.parser.unreader.take_buffered():
            self._take_in(conn, early)

    def _refuse(self, conn: Connection, refusal: Refusal) -> None:
        self.log.info("refused a request of %s: %s", conn.client, refusal)
        conn.received.clear()
        with suppress(OSError):
            conn.sock.send(refusal.response())
        self._unwatch(conn)
        self._linger(conn)

    def _linger(self, conn: Connection) -> None:
        """Close the sending side of a connection, and wait shortly for the client to close the other.

        A close with unread bytes would reset the connection before the client has read the response: RFC 9112, 9.6.
        """
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:  # closed by the client, or by its thread
            self._close(conn)
            return
        self._watch(conn, LINGER_S, self._drain)

    def _drain(self, conn: Connection, _: socket.socket) -> None:
        if self._piece_of(conn) == b"":
            self._close(conn)

    def _piece_of(self, conn: Connection) -> bytes | None:
        """Return received bytes; b"" if the connection has ended, None if nothing has arrived."""
        if conn not in self._idle:  # the callback of an earlier event of the same poll has closed it
            return None
        try:
            piece: bytes = conn.sock.recv(PIECE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        return piece

    def _watch(self, conn: Connection, timeout_s: float, react: Callable[[Connection, socket.socket], None]) -> None:
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
