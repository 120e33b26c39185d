"""A request's body, on its way into the spool: a piece at a time, hashed, unpacked, and gone if it is cut off."""

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
from telemetry import formats, spool, unpacking
from telemetry.formats import Written

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
LEAST_BYTES_PER_S = 1000


@dataclass(frozen=True)
class Declared:
    """What a request says of its body."""

    written: Written
    charset: str | None
    length_bytes: int | None
    """None: it comes in chunks, and tells its end by itself"""


def declared(request: HttpRequest) -> Declared:
    """Read the headers that tell of the body, before the body.

    Raises:
        Problem: 411, 413 or 415.
    """
    header = Message()
    header["Content-Type"] = request.headers.get("Content-Type", "")
    kind = header.get_content_type() if header["Content-Type"] else ""
    if kind not in CONTENT_TYPES:
        allowed = ", ".join(CONTENT_TYPES)
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {kind!r} cannot be loaded; allowed: {allowed}",
            headers={"Accept-Post": allowed},
        )
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in CODINGS:
        allowed = ", ".join(CODINGS)
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Encoding {coding!r} cannot be unpacked; allowed: {allowed}",
            headers={"Accept-Encoding": allowed},
        )
    charset = header.get_content_charset() if kind == "text/csv" else None
    return Declared(Written(formats.by_name(CONTENT_TYPES[kind]), CODINGS[coding]), charset, _length_of(request))


def _length_of(request: HttpRequest) -> int | None:
    length = request.headers.get("Content-Length", "")
    if not length and request.headers.get("Transfer-Encoding", "").lower() == "chunked":
        return None
    if not length.isdecimal():
        raise Problem(HTTPStatus.LENGTH_REQUIRED, "the body's length is needed: Content-Length, or chunks")
    _require_size(int(length))
    return int(length)


def _require_size(size_bytes: int) -> None:
    if size_bytes > settings.INGEST_UPLOAD_MAX_BYTES:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body has more than {settings.INGEST_UPLOAD_MAX_BYTES:,} bytes, unpacked; divide it",
        )


class _Body(io.RawIOBase):
    """A request's body as a file that can be read once."""

    def __init__(self, request: HttpRequest, length_bytes: int | None) -> None:
        # Django takes a body without a length for an empty one; the server knows where its chunks end.
        self._file = request if length_bytes is not None else request.environ["wsgi.input"]  # type: ignore[attr-defined]
        self._length_bytes = length_bytes
        self._read_bytes = 0
        self._begun_at = time.monotonic()
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Give the next piece.

        Raises:
            Problem: 400, the client has gone or is silent; 413.
        """
        try:
            piece: bytes = self._file.read(PIECE_BYTES if size < 0 else min(size, PIECE_BYTES))
        except Exception as error:  # noqa: BLE001 - each server has its own for a body that breaks off
            raise Problem(HTTPStatus.BAD_REQUEST, f"the body was cut off: {error}") from None
        self._read_bytes += len(piece)
        self._require_pace()
        if not piece and self._length_bytes is not None and self._read_bytes < self._length_bytes:
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                f"the body was cut off after {self._read_bytes:,} of {self._length_bytes:,} bytes",
            )
        _require_size(self._read_bytes)
        self.sha256.update(piece)
        return piece

    def _require_pace(self) -> None:
        """Refuse a body that comes so slowly that it is there to keep a thread."""
        if time.monotonic() - self._begun_at > settings.INGEST_UPLOAD_IDLE_S + self._read_bytes / LEAST_BYTES_PER_S:
            detail = f"the body was cut off: it came with less than {LEAST_BYTES_PER_S:,} bytes/s"
            raise Problem(HTTPStatus.BAD_REQUEST, detail)


@dataclass(frozen=True)
class Received:
    """A body that is in the spool."""

    location: str
    sha256: bytes
    """of the body as it was sent"""


def receive(request: HttpRequest, body: Declared) -> Received:
    """Write a request's body into the spool, unpacked; memory holds a piece of it.

    Raises:
        Problem: 400, it was cut off; 413; 422, it cannot be unpacked; 507. The spool holds nothing of it then.
    """
    source = _Body(request, body.length_bytes)
    with _patience(request), spool.writing(body.written.format.endings[0]) as spooled:
        size_bytes = 0
        for piece in _unpacked(source, body.written.compression):
            size_bytes += len(piece)
            _require_size(size_bytes)
            try:
                spooled.sink.write(piece)
            except OSError as error:
                if error.errno == ENOSPC:
                    raise Problem(HTTPStatus.INSUFFICIENT_STORAGE, "the spool is full") from None
                raise
    return Received(spooled.location, source.sha256.digest())


def _unpacked(source: _Body, compression: str) -> Iterator[bytes]:
    try:
        yield from unpacking.unpacked(source, compression, window_max_bytes=unpacking.HTTP_WINDOW_MAX_BYTES)
    except unpacking.UnpackError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"the body: {error}") from None


@contextmanager
def _patience(request: HttpRequest) -> Iterator[None]:
    """Wait for a silent client INGEST_UPLOAD_IDLE_S at most, if the server shows its socket, as gunicorn does."""
    socket = request.environ.get("gunicorn.socket")  # type: ignore[attr-defined]
    if socket is None:
        yield
        return
    before = socket.gettimeout()
    socket.settimeout(settings.INGEST_UPLOAD_IDLE_S)
    try:
        yield
    finally:
        socket.settimeout(before)
