"""Unpacking compressed data piece by piece, with no more than a piece and the window in memory."""

import io
from collections.abc import Generator, Iterator
from typing import Protocol

import pyarrow as pa

PIECE_BYTES = 1 << 20
# zstd keeps as many unpacked bytes in memory as a frame's header asks for. Arrow's limit is 27 bits, which
# `zstd --ultra -22` needs; over HTTP, RFC 9659 allows 8 MiB.
WINDOW_MAX_BYTES = 128 << 20
HTTP_WINDOW_MAX_BYTES = 8 << 20

ZSTD_MAGIC = 0xFD2FB528
ZSTD_SKIPPABLE_MAGIC = 0x184D2A50  # to ..5F
RLE_BLOCK = 1
CHECKSUM_BYTES = 4


class UnpackError(ValueError):
    """Data that is not valid in its compression, or needs too much memory to unpack."""


class Readable(Protocol):
    """A file that can be read once, from its beginning."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, at most `size`; b"" at the end."""


def unpacked(packed: Readable, compression: str, *, window_max_bytes: int = WINDOW_MAX_BYTES) -> Iterator[bytes]:
    """Yield the content of a file of one or more members or frames, in pieces of at most PIECE_BYTES.

    Args:
        packed: the file; errors of its `read` are passed on.
        compression: gzip or zstd; empty if the file is not compressed.
        window_max_bytes: the largest window that a zstd frame may ask for, at most WINDOW_MAX_BYTES.

    Raises:
        UnpackError: the data cannot be unpacked.
    """
    if not compression:
        yield from iter(lambda: packed.read(PIECE_BYTES), b"")
        return
    file = _Packed(packed, _window_check(window_max_bytes) if compression == "zstd" else None)
    stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), compression)
    try:
        yield from iter(lambda: stream.read(PIECE_BYTES), b"")
    except OSError as error:
        if file.failure is not None:  # an error of reading the file, not of unpacking it
            raise file.failure from None
        raise UnpackError(f"cannot be unpacked as {compression}: {error}") from None


# A generator that is sent the bytes as they are read, and raises UnpackError.
Check = Generator[None, bytes, None]


class _Packed(io.RawIOBase):
    """A compressed file that records its own errors, to distinguish them from those of unpacking, and checks bytes."""

    def __init__(self, file: Readable, check: Check | None) -> None:
        self._file, self._check = file, check
        self.failure: OSError | None = None
        if check is not None:
            next(check)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            piece = self._file.read(PIECE_BYTES if size < 0 else size)
        except OSError as error:
            self.failure = error
            raise
        if self._check is not None:
            self._check.send(piece)
        return piece


def _window_check(window_max_bytes: int) -> Check:
    """Check the window of each frame; other violations of the format are left to zstd.

    https://www.rfc-editor.org/rfc/rfc8878#section-3.1

    Raises:
        UnpackError: a frame asks for a window that is too large.
    """
    data = _Pending()
    while True:
        magic = int.from_bytes((yield from data.take(4)), "little")
        if magic & ~0xF == ZSTD_SKIPPABLE_MAGIC:
            yield from data.skip(int.from_bytes((yield from data.take(4)), "little"))
            continue
        while magic != ZSTD_MAGIC:
            yield
        (descriptor,) = yield from data.take(1)
        is_single_segment = bool(descriptor & 0x20)
        window = b"" if is_single_segment else (yield from data.take(1))
        yield from data.skip((0, 1, 2, 4)[descriptor & 3])  # the dictionary's id
        size_bytes = (is_single_segment, 2, 4, 8)[descriptor >> 6]
        content_size = int.from_bytes((yield from data.take(size_bytes)), "little") + 256 * (size_bytes == 2)
        window_bytes = _window_bytes(window[0]) if window else content_size
        if window_bytes > window_max_bytes:
            detail = f"a frame needs a window of {window_bytes:,} bytes, the limit is {window_max_bytes:,}"
            raise UnpackError(f"cannot be unpacked as zstd: {detail}; compress it without --long and --ultra")
        is_last = False
        while not is_last:
            header = int.from_bytes((yield from data.take(3)), "little")
            is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
            yield from data.skip(1 if kind == RLE_BLOCK else size)
        yield from data.skip(CHECKSUM_BYTES if descriptor & 0x04 else 0)


def _window_bytes(descriptor: int) -> int:
    base = 1 << (10 + (descriptor >> 3))
    return base + base // 8 * (descriptor & 7)


class _Pending:
    """The bytes that were sent to a generator and not consumed yet."""

    def __init__(self) -> None:
        self._piece, self._at = b"", 0

    def take(self, count: int) -> Generator[None, bytes, bytes]:
        """Return the next `count` bytes."""
        while len(self._piece) - self._at < count:
            self._piece, self._at = self._piece[self._at :] + (yield), 0
        self._at += count
        return self._piece[self._at - count : self._at]

    def skip(self, count: int) -> Generator[None, bytes, None]:
        """Skip the next `count` bytes without keeping them."""
        while (rest := len(self._piece) - self._at) < count:
            count -= rest
            self._piece, self._at = (yield), 0
        self._at += count
