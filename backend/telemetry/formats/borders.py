"""Cutting and reading text files in blocks of whole records, without holding the whole file in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from telemetry.formats.base import PIECE_BYTES, Slice
from telemetry.formats.source import BadInput, Source

READ_BYTES = 8 << 20  # each read from an object store is a request
SCAN_BYTES = 256 << 10  # fits into the processor's cache
RECORD_MAX_BYTES = 16 << 20
SLICE_MAX_BYTES = 64 << 20
SAMPLED_ROW_BYTES = 64


class Borders(Protocol):
    """The ends of the records in a block of bytes."""

    count: int
    is_regular: bool

    @property
    def ends(self) -> np.ndarray:
        """The end offset of each record."""

    def at(self, index: int) -> tuple[int, int]:
        """Return the end offset of a record, and the number of lines before it."""


class Find(Protocol):
    """A function that finds the ends of records."""

    def __call__(self, data: bytes, *, is_last: bool) -> Borders:
        """Return the ends of records in data that begins with one; without the last if it may be incomplete."""


@dataclass(frozen=True)
class Block:
    """Whole records of a file."""

    offset: int
    """in the file"""
    first_line: int
    """line number in the file, counted from 1"""
    data: memoryview
    borders: Borders

    def at(self, index: int) -> tuple[int, int]:
        """Return the end offset of a record, and the number of the line that begins there, both in the file."""
        end, lines = self.borders.at(index)
        return self.offset + end, self.first_line + lines

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Yield each record with the number of its first line."""
        begin, line = 0, self.first_line
        for end in self.borders.ends:
            record = bytes(self.data[begin:end])
            yield line, record
            begin, line = end, line + record.count(b"\n")


def slices(source: Source, start: int, first_line: int, batch_rows: int, find: Find) -> Iterator[Slice]:
    """Yield slices of `batch_rows` records.

    Args:
        source: the file.
        start: the offset of the first record, in bytes.
        first_line: the number of the line that begins there, counted from 1.
        batch_rows: records per slice.
        find: finds the ends of records.

    Raises:
        BadInput: a line is longer than 16 MiB.
    """
    end, rows = start, 0
    for block in _blocks(source, (start, source.stamp().size_bytes), first_line, find, SCAN_BYTES):
        taken = 0
        while block.borders.count - taken >= batch_rows - rows:
            taken += batch_rows - rows
            end, next_line = block.at(taken - 1)
            yield _slice(batch_rows, start, end, first_line)
            start, first_line, rows = end, next_line, 0
        if block.borders.count > taken:
            rows += block.borders.count - taken
            end, next_line = block.at(-1)
            if end - start >= SLICE_MAX_BYTES:  # long records: bound the transaction by bytes instead of rows
                yield _slice(rows, start, end, first_line)
                start, first_line, rows = end, next_line, 0
    if rows:
        yield _slice(rows, start, end, first_line)


def _slice(row_count: int, start: int, end: int, first_line: int) -> Slice:
    return Slice(row_count, {"offset": start, "length": end - start, "first_line": first_line})


def pieces(source: Source, place: dict[str, Any], find: Find) -> Iterator[Block]:
    """Yield a slice in blocks of about PIECE_BYTES."""
    part = (place["offset"], place["offset"] + place["length"])
    yield from _blocks(source, part, place["first_line"], find, PIECE_BYTES)


def first_piece(source: Source, part: Slice, find: Find, row_limit: int) -> Block | None:
    """Return the first rows of a slice, about `row_limit` of SAMPLED_ROW_BYTES each; None if the first is too long."""
    offset, length = part.place["offset"], part.place["length"]
    taken = min(length, row_limit * SAMPLED_ROW_BYTES, PIECE_BYTES)
    data = b"".join(_chunks(source, offset, offset + taken, taken))
    return _block(offset, part.place["first_line"], data, find(data, is_last=len(data) == length))


def _blocks(source: Source, part: tuple[int, int], first_line: int, find: Find, block_bytes: int) -> Iterator[Block]:
    """Yield a part of a file in blocks of whole records; an incomplete record at the end begins the next block."""
    (offset, stop), line = part, first_line
    unfinished = b""
    for chunk in _chunks(source, offset, stop, block_bytes):
        data = b"".join((unfinished, chunk))
        if len(data) - (data.rfind(b"\n") + 1) > RECORD_MAX_BYTES:
            raise BadInput(source, "the line is longer than 16 MiB", line=line + data.count(b"\n"))
        borders = find(data, is_last=offset + len(data) == stop)
        if block := _block(offset, line, data, borders):
            yield block
        end, lines = borders.at(-1) if borders.count else (0, 0)
        offset, line, unfinished = offset + end, line + lines, data[end:]


def _block(offset: int, line: int, data: bytes, borders: Borders) -> Block | None:
    return Block(offset, line, memoryview(data)[: borders.at(-1)[0]], borders) if borders.count else None


def _chunks(source: Source, start: int, stop: int, size: int) -> Iterator[memoryview]:
    with source.open() as file:
        file.seek(start)
        while start < stop:
            read = memoryview(file.read_buffer(min(READ_BYTES, stop - start)))
            if not read:
                raise BadInput(source, f"the file has changed: it ends at byte {start:,}, expected {stop:,} bytes")
            for offset in range(0, len(read), size):
                yield read[offset : offset + size]
            start += len(read)
