"""Where records end in a text file, found without reading what is in them, so that the file can be cut there."""

import csv
import io
from collections.abc import Iterator
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa

from telemetry.formats.base import PIECE_BYTES, Slice
from telemetry.formats.source import BadInput, Source

NEWLINE, QUOTE = ord("\n"), ord('"')
READ_BYTES = 8 << 20  # from an object store, each reading costs a journey
SCAN_BYTES = 256 << 10  # it stays in the processor's cache
RECORD_MAX_BYTES = 16 << 20
SLICE_MAX_BYTES = 64 << 20
BORDERS_AT_ONCE = 10_000

csv.field_size_limit(RECORD_MAX_BYTES)  # Python's own, 131,072 characters, is less than Arrow takes


class Borders(Protocol):
    """Where the records of a block of a file end."""

    count: int

    def at(self, index: int) -> tuple[int, int]:
        """Give the offset just behind a record, and the number of the line that begins there."""


def slices(blocks: Iterator[Borders], start: int, size: int, first_line: int, batch_rows: int) -> Iterator[Slice]:
    """Gather records to slices of `batch_rows`; what follows the last border is a record too.

    Args:
        blocks: the borders in the bytes from `start` to `size`.
        start: the offset of the first record, in bytes.
        size: of the file, in bytes.
        first_line: the number of the line that begins at `start`, counted from 1.
        batch_rows: records in a slice.
    """
    end, rows = start, 0
    for borders in blocks:
        taken = 0
        while borders.count - taken >= batch_rows - rows:
            taken += batch_rows - rows
            end, next_line = borders.at(taken - 1)
            yield _slice(batch_rows, start, end, first_line)
            start, first_line, rows = end, next_line, 0
        if borders.count > taken:
            rows += borders.count - taken
            end, next_line = borders.at(-1)
            if end - start >= SLICE_MAX_BYTES:  # long records: memory is bounded before it is the rows' turn
                yield _slice(rows, start, end, first_line)
                start, first_line, rows = end, next_line, 0
    if start < size:
        yield _slice(rows + (end < size), start, size, first_line)


def _slice(row_count: int, start: int, end: int, first_line: int) -> Slice:
    return Slice(row_count, {"offset": start, "length": end - start, "first_line": first_line})


def read_slice(source: Source, place: dict[str, Any]) -> pa.Buffer:
    """Read the bytes of a slice that `slices` made."""
    with source.open() as file:
        file.seek(place["offset"])
        return file.read_buffer(place["length"])


def read_head(source: Source, part: Slice, row_limit: int) -> pa.Buffer:
    """Read the first lines of a slice, about so many; of one whose first line is longer than a piece, none."""
    length = part.place["length"]
    wanted = min(length, PIECE_BYTES, length * row_limit // part.row_count + 1)
    data = read_slice(source, {**part.place, "length": wanted})
    return data if wanted == length else data.slice(0, data.to_pybytes().rfind(b"\n") + 1)


def pieces(data: pa.Buffer, first_line: int) -> Iterator[tuple[pa.Buffer, int]]:
    """Divide lines into pieces of about PIECE_BYTES; give each with the number of its first line."""
    start, codes = 0, np.frombuffer(data, np.uint8)
    while start < data.size:
        end = _line_end(codes, min(start + PIECE_BYTES, data.size) - 1)
        yield data.slice(start, end - start), first_line
        first_line += int(np.count_nonzero(codes[start:end] == NEWLINE))
        start = end


def _line_end(codes: np.ndarray, start: int) -> int:
    """Give the offset behind the first newline at or after `start`."""
    for window in range(start, len(codes), SCAN_BYTES):
        found = np.flatnonzero(codes[window : window + SCAN_BYTES] == NEWLINE)
        if len(found):
            return window + int(found[0]) + 1
    return len(codes)


class _Lines:
    """Borders where each line is a record: counting them is quick, and few blocks are asked where they are."""

    def __init__(self, offset: int, block: bytes, line: int) -> None:
        self._offset, self._line = offset, line
        self._is_end = np.frombuffer(block, np.uint8) == NEWLINE
        self._last = offset + block.rfind(b"\n") + 1
        self.count = int(np.count_nonzero(self._is_end))

    def at(self, index: int) -> tuple[int, int]:
        """Give the offset just behind a line, and the number of the next."""
        if index in (-1, self.count - 1):
            return self._last, self._line + self.count
        return self._offset + int(np.flatnonzero(self._is_end)[index]) + 1, self._line + index + 1


class _Records:
    """Borders that were found one by one, or among others that are none."""

    def __init__(self, ends: np.ndarray, next_lines: np.ndarray) -> None:
        self._ends, self._next_lines = ends, next_lines
        self.count = len(ends)

    def at(self, index: int) -> tuple[int, int]:
        """Give the offset just behind a record, and the number of the line that begins there."""
        return int(self._ends[index]), int(self._next_lines[index])


def line_borders(source: Source, start: int, size: int, first_line: int) -> Iterator[Borders]:
    """Find where lines end.

    Raises:
        BadInput: a line is longer than 16 MiB.
    """
    border, line = start, first_line
    for offset, block in _blocks(source, start, size):
        lines = _Lines(offset, block, line)
        if lines.count:
            border, line = lines.at(-1)
        if offset + len(block) - border > RECORD_MAX_BYTES:
            raise BadInput(source, "this line has more than 16 MiB", line=line)
        yield lines


def csv_borders(source: Source, start: int, size: int, first_line: int, delimiter: str) -> Iterator[Borders]:
    """Find where records of a CSV end; a newline in quotes is none.

    Raises:
        BadInput: a quote is never closed, or not within 16 MiB.
    """
    border, line = start, first_line
    try:
        for borders in _borders_by_counting(source, start, size, first_line, ord(delimiter)):
            if borders.count:
                border, line = borders.at(-1)
            yield borders
    except _StrayQuoteError:
        yield from _borders_by_parsing(source, border, size, line, delimiter)


class _StrayQuoteError(Exception):
    """A quote stands within a field that is not quoted, so counting quotes does not tell where records end."""


def _blocks(source: Source, start: int, size: int) -> Iterator[tuple[int, bytes]]:
    with source.open() as file:
        file.seek(start)
        while start < size:
            piece = memoryview(file.read_buffer(min(READ_BYTES, size - start)))
            if not piece:
                raise BadInput(source, f"the file ends at byte {start} of {size}: it has changed")
            for offset in range(0, len(piece), SCAN_BYTES):
                yield start + offset, bytes(piece[offset : offset + SCAN_BYTES])
            start += len(piece)


def _borders_by_counting(source: Source, start: int, size: int, first_line: int, delimiter: int) -> Iterator[Borders]:
    """Find borders a block at a time: a newline between an odd and an even quote belongs to a field."""
    line, in_quotes, before = first_line, False, NEWLINE
    border, border_line = start, first_line
    for offset, block in _blocks(source, start, size):
        borders: Borders = _Lines(offset, block, line)
        line += borders.count
        if in_quotes or QUOTE in block:
            borders, in_quotes = _outside_quotes(offset, block, line - borders.count, (in_quotes, before, delimiter))
        before = block[-1]
        if borders.count:
            border, border_line = borders.at(-1)
        yield borders
        reached = offset + len(block)
        if reached - border > RECORD_MAX_BYTES or (reached == size and in_quotes):
            raise BadInput(source, "a quote is opened in this record and not closed", line=border_line)


def _outside_quotes(offset: int, block: bytes, line: int, around: tuple[bool, int, int]) -> tuple[_Records, bool]:
    """Tell the newlines that end records from those in quotes; say too whether the block ends in quotes."""
    in_quotes, before, delimiter = around
    codes = np.frombuffer(block, np.uint8)
    quotes = np.cumsum(codes == QUOTE, dtype=np.uint8) + np.uint8(in_quotes)  # wraps, parity stays
    _require_quotes_at_field_borders(codes, quotes, (before, delimiter))
    ends = np.flatnonzero(codes == NEWLINE)
    is_border = quotes[ends] & 1 == 0
    next_lines = np.arange(line + 1, line + 1 + len(ends))
    return _Records(offset + 1 + ends[is_border], next_lines[is_border]), bool(quotes[-1] & 1)


def _require_quotes_at_field_borders(codes: np.ndarray, quotes: np.ndarray, around: tuple[int, int]) -> None:
    """Check that each quote that opens follows a delimiter, a newline, or the quote that it doubles."""
    before, delimiter = around
    opening = np.flatnonzero((codes == QUOTE) & (quotes & 1 == 1))
    previous = np.where(opening > 0, codes[opening - 1], before)
    if not np.isin(previous, (delimiter, NEWLINE, QUOTE)).all():
        raise _StrayQuoteError


def _borders_by_parsing(source: Source, start: int, size: int, first_line: int, delimiter: str) -> Iterator[Borders]:
    """Find borders record by record, as Python's csv reads them; slower by two orders."""
    lengths: list[int] = []
    with source.open() as raw:
        raw.seek(start)
        file = io.BufferedReader(raw, READ_BYTES)
        reader = csv.reader(_lines_with_lengths(file, size - start, lengths), delimiter=delimiter)
        end, line = start, first_line
        ends, lines = [], []
        while True:
            try:
                next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                raise BadInput(source, str(error), line=line) from None
            end, line = end + sum(lengths), first_line + reader.line_num
            lengths.clear()
            ends.append(end)
            lines.append(line)
            if len(ends) == BORDERS_AT_ONCE:
                yield _Records(np.array(ends), np.array(lines))
                ends, lines = [], []
    yield _Records(np.array(ends), np.array(lines))


def _lines_with_lengths(file: IO[bytes], size: int, lengths: list[int]) -> Iterator[str]:
    """Yield lines for csv, noting their lengths in bytes; a lone CR, which csv refuses, is no border here either."""
    left = size
    while left and (line := file.readline(left)):
        left -= len(line)
        lengths.append(len(line))
        yield line.replace(b"\r", b" ").decode("latin-1")
