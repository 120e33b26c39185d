"""A client's connection in the web's main thread: the bytes of a request so far, and whether a thread can take it."""

import json
import re
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from gunicorn.http import errors  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn  # type: ignore[import-untyped]

from config.paced_socket import PacedSocket

PROBES = (b"/healthz", b"/readyz", b"/metrics")
UPLOADS = (b"/api/ingest/", b"/api/ingest")

HEADER_END = b"\r\n\r\n"
HEADER_MAX_BYTES = 64 << 10
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
DIGITS_MAX = 19
RETRY_AFTER_S = 5


class Refusal(Exception):
    """A request that the main thread answers with an error, without a thread."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status

    def response(self) -> bytes:
        """Return the HTTP response: a problem document, as the API's errors are."""
        document = {"type": "about:blank", "title": self.status.phrase, "status": self.status, "detail": str(self)}
        body = json.dumps(document, indent=2).encode()
        head = [f"HTTP/1.1 {self.status} {self.status.phrase}", "Connection: close"]
        head += ["Content-Type: application/problem+json", f"Content-Length: {len(body)}"]
        if self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            head.append(f"Retry-After: {RETRY_AFTER_S}")
        return "\r\n".join([*head, "", ""]).encode() + body


# The status for each error of gunicorn's parser; 400 for all others.
STATUSES = {
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
    errors.ForbiddenProxyRequest: HTTPStatus.FORBIDDEN,
}
OF_THE_SERVER = (errors.ConfigurationProblem, errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)
DETAIL_MAX_LENGTH = 300


def refusal_of(error: Exception) -> Refusal | None:
    """Return the refusal for an error of gunicorn's parser; None for an error of the application or the server."""
    if isinstance(error, OF_THE_SERVER) or not isinstance(error, errors.ParseException):
        return None
    status = STATUSES.get(type(error), HTTPStatus.BAD_REQUEST)
    return Refusal(status, f"cannot parse the request: {error}"[:DETAIL_MAX_LENGTH])


class Head:
    """The parts of a request's line and header that the main thread needs; gunicorn's parser validates them later."""

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
        """Return True if the application reads the body piece by piece."""
        return self.method == b"POST" and self.path in UPLOADS

    @property
    def is_probe(self) -> bool:
        """Return True if the request is a probe, for which threads are reserved."""
        has_body = self.body_bytes > 0 or self.is_chunked
        return self.method in (b"GET", b"HEAD") and self.path in PROBES and not has_body

    def require_bounded_body(self, limit_bytes: int) -> None:
        """Refuse a body that the main thread cannot collect before a thread takes the request.

        Raises:
            Refusal: 411, its length is unknown; 413, it is too large.
        """
        if self.is_upload:
            return
        if self.is_chunked:
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "only uploads may use chunked encoding; send a Content-Length")
        if self.body_bytes > limit_bytes:
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has {self.body_bytes:,} bytes; the limit is {limit_bytes:,} (WEB_BODY_MAX_BYTES)",
            )


class Connection(TConn):  # type: ignore[misc]
    """A client's connection, with the bytes of its next request."""

    def __init__(self, cfg: Any, sock: PacedSocket, client: Any, server: Any) -> None:
        super().__init__(cfg, sock, client, server)
        self.received = bytearray()
        self.head: Head | None = None
        self.body_at = 0
        self.expires_at = 0.0
        self.init()  # creates the parser; without TLS this does not wait for the client
        self.sock.setblocking(False)

    def take_in(self, piece: bytes, body_max_bytes: int) -> Head | None:
        """Add received bytes; return the request's head as soon as a thread can take it, else None.

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
            detail = f"the header exceeds the limit of {HEADER_MAX_BYTES:,} bytes"
            raise Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)
        if end < 0:
            return
        self.body_at = size_bytes
        self.head = Head(bytes(self.received[:size_bytes]))
        self.head.require_bounded_body(body_max_bytes)
        if self.head.expects_continue and not self.head.is_upload:  # an upload's thread sends it itself
            with suppress(OSError):
                self.sock.send(CONTINUE)

    def hand_over(self) -> None:
        """Pass the received bytes to the parser."""
        self.parser.unreader.unread(bytes(self.received))
        self.received, self.head = bytearray(), None
