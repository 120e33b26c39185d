"""Receiving a request's body into the spool: piece by piece, hashed, unpacked, and removed again if it is cut off."""

import hashlib
import io
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from errno import ENOSPC
from http import HTTPStatus

from django.conf import settings
from django.http import HttpRequest

from api.problems import Problem
from api.quota import Quota
from telemetry import arguments, formats, spool, unpacking
from telemetry.formats import Written
from telemetry.spool import Spooled

logger = logging.getLogger(__name__)

CONTENT_TYPES = {
    "text/csv": "csv",
    "application/x-ndjson": "ndjson",
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.arrow.file": "arrow",
}
CODINGS = {"identity": "", "gzip": "gzip", "zstd": "zstd"}
PIECE_BYTES = 1 << 20
FULL_RETRY_AFTER_S = 60


@dataclass(frozen=True)
class Declared:
    """What the headers of a request say about its body."""

    written: Written
    charset: str | None
    length_bytes: int | None
    """None if the body is sent in chunks"""


def declared(request: HttpRequest) -> Declared:
    """Read the headers that describe the body, before the body is read.

    Raises:
        Problem: 411 without a length, 413 if the body is too large, 415 if it cannot be decoded.
    """
    header = Message()
    header["Content-Type"] = request.headers.get("Content-Type", "")
    kind = header.get_content_type() if header["Content-Type"] else ""
    if kind not in CONTENT_TYPES:
        allowed = ", ".join(CONTENT_TYPES)
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"unsupported Content-Type {kind!r}; allowed: {allowed}",
            headers={"Accept-Post": allowed},
        )
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in CODINGS:
        allowed = ", ".join(CODINGS)
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"unsupported Content-Encoding {coding!r}; allowed: {allowed}",
            headers={"Accept-Encoding": allowed},
        )
    charset = _charset_of(header) if kind == "text/csv" else None
    return Declared(Written(formats.by_name(CONTENT_TYPES[kind]), CODINGS[coding]), charset, _length_of(request))


def _charset_of(header: Message) -> str | None:
    charset = header.get_param("charset")
    if charset is None:
        return None
    name = charset if isinstance(charset, str) else charset[-1]  # in RFC 2231's notation it has three parts
    try:
        return arguments.ascii_encoding(name)
    except ValueError as error:
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"charset of Content-Type: {error}") from None


def _length_of(request: HttpRequest) -> int | None:
    length = request.headers.get("Content-Length", "")
    if not length and request.headers.get("Transfer-Encoding", "").lower() == "chunked":
        return None
    if not length.isdecimal():
        raise Problem(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length, or Transfer-Encoding: chunked")
    _require_size(int(length))
    return int(length)


def _require_size(size_bytes: int) -> None:
    if size_bytes > settings.INGEST_UPLOAD_MAX_BYTES:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body has more than {settings.INGEST_UPLOAD_MAX_BYTES:,} bytes unpacked (INGEST_UPLOAD_MAX_BYTES); "
            "split the upload",
        )


class _Body(io.RawIOBase):
    """A request's body as a file that can be read once."""

    def __init__(self, request: HttpRequest, length_bytes: int | None) -> None:
        # Django treats a body without a length as empty; the server knows where its chunks end.
        self._file = request if length_bytes is not None else request.environ["wsgi.input"]  # type: ignore[attr-defined]
        self._length_bytes = length_bytes
        self._read_bytes = 0
        self._begun_at = time.monotonic()
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next piece, or b"" at the end.

        Raises:
            Problem: 400 if the client has disconnected or takes too long, 413 if the body is too large.
        """
        try:
            piece: bytes = self._file.read(PIECE_BYTES if size < 0 else min(size, PIECE_BYTES))
        except Exception as error:  # noqa: BLE001 - each server raises an error of its own for a body that is cut off
            reason = getattr(error, "strerror", None) or error
            raise Problem(HTTPStatus.BAD_REQUEST, f"the body was cut off: {reason}") from None
        self._read_bytes += len(piece)
        self._require_time()
        if not piece and self._length_bytes is not None and self._read_bytes < self._length_bytes:
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                f"the body was cut off after {self._read_bytes:,} of {self._length_bytes:,} bytes",
            )
        _require_size(self._read_bytes)
        self.sha256.update(piece)
        return piece

    def _require_time(self) -> None:
        if time.monotonic() - self._begun_at > settings.INGEST_UPLOAD_MAX_S:
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                f"the body was cut off after {self._read_bytes:,} bytes: the upload took longer than "
                f"{settings.INGEST_UPLOAD_MAX_S:,} s (INGEST_UPLOAD_MAX_S); split it",
            )


@dataclass(frozen=True)
class Received:
    """A body that has been written to the spool."""

    location: str
    sha256: bytes
    """of the body as it was sent, before unpacking"""


def receive(request: HttpRequest, body: Declared, quota: Quota) -> Received:
    """Write a request's body to the spool, unpacked, with one piece in memory at a time.

    Raises:
        Problem: 400 if the body is cut off, 413 if it is too large, 422 if it cannot be unpacked, 507 if there is no
            room for it. Nothing of it is left in the spool then.
    """
    declared_bytes = body.length_bytes or 0
    quota.begin(declared_bytes)
    source = _Body(request, body.length_bytes)
    with _insufficient_storage():
        spool.require_room(declared_bytes)
        with _pace(request), spool.writing(body.written.format.endings[0], quota.owner) as spooled:
            _write(_unpacked(source, body.written.compression), spooled, quota)
    try:
        quota.complete(spooled.location)
    except BaseException:
        spool.discard(spooled.location)
        raise
    return Received(spooled.location, source.sha256.digest())


def _write(pieces: Iterator[bytes], spooled: Spooled, quota: Quota) -> None:
    size_bytes = 0
    for piece in pieces:
        size_bytes += len(piece)
        _require_size(size_bytes)
        quota.take(len(piece), spooled.location)
        spool.require_room(len(piece))
        spooled.sink.write(piece)


@contextmanager
def _insufficient_storage() -> Iterator[None]:
    """Answer 507 if the spool's disk is full, or has only its reserve left."""
    try:
        yield
    except OSError as error:
        if error.errno != ENOSPC:
            raise
        detail = f"{error}; try again when jobs are done and their inputs are removed"
        headers = {"Retry-After": str(FULL_RETRY_AFTER_S)}
        raise Problem(HTTPStatus.INSUFFICIENT_STORAGE, detail, headers=headers) from None


def _unpacked(source: _Body, compression: str) -> Iterator[bytes]:
    try:
        yield from unpacking.unpacked(source, compression, window_max_bytes=unpacking.HTTP_WINDOW_MAX_BYTES)
    except unpacking.UnpackError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"the body {error}") from None


@contextmanager
def _pace(request: HttpRequest) -> Iterator[None]:
    """Require the pace of an upload from the client, if the server can measure it: see `config.paced_socket`."""
    socket = request.environ.get("gunicorn.socket")  # type: ignore[attr-defined]
    if not hasattr(socket, "set_pace"):
        yield
        return
    before = socket.pace
    socket.set_pace(settings.INGEST_UPLOAD_IDLE_S, settings.INGEST_UPLOAD_MIN_BYTES_PER_S)
    try:
        yield
    finally:
        socket.set_pace(before.idle_s, before.bytes_per_s)
