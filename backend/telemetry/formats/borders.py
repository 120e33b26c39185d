"""Where records end in a text file, found without reading what is in them, so that the file can be cut there."""

import csv
import io
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from telemetry.formats.base import Slice
from telemetry.formats.source import BadInput, Source

NEWLINE, QUOTE = ord("\n"), ord('"')
SCAN_BYTES = 8 << 20
RECORD_MAX_BYTES = 16 << 20
BORDERS_AT_ONCE = 10_000

csv.field_size_limit(RECORD_MAX_BYTES)  # Python's own, 131,072 characters, is less than Arrow takes

# For each block of a file: the offsets just behind its records, and the numbers of the lines that begin there.
Borders = Iterator[tuple[np.ndarray, np.ndarray]]


def slices(borders: Borders, start: int, size: int, first_line: int, batch_rows: int) -> Iterator[Slice]:
    """Gather records to slices of `batch_rows`; what follows the last border is a record too.

    Args:
        borders: of the bytes from `start` to `size`.
        start: the offset of the first record, in bytes.
        size: of the file, in bytes.
        first_line: the number of the line that begins at `start`, counted from 1.
        batch_rows: records in a slice.
    """
    end, rows = start, 0
    for ends, next_lines in borders:
        taken = 0
        while len(ends) - taken >= batch_rows - rows:
            last = taken + batch_rows - rows - 1
            end = int(ends[last])
            yield _slice(batch_rows, start, end, first_line)
            start, first_line, rows, taken = end, int(next_lines[last]), 0, last + 1
        if len(ends) > taken:
            rows += len(ends) - taken
            end = int(ends[-1])
    if start < size:
        yield _slice(rows + (end < size), start, size, first_line)


def _slice(row_count: int, start: int, end: int, first_line: int) -> Slice:
    return Slice(row_count, {"offset": start, "length": end - start, "first_line": first_line})


def read_slice(source: Source, place: dict[str, Any]) -> bytes:
    """Read the bytes of a slice that `slices` made."""
    with source.open() as file:
        file.seek(place["offset"])
        return bytes(file.read(place["length"]))


def line_borders(source: Source, start: int, size: int, first_line: int) -> Borders:
    """Find where lines end.

    Raises:
        BadInput: a line is longer than 16 MiB.
    """
    border, line = start, first_line
    for offset, block in _blocks(source, start, size):
        ends = offset + 1 + np.flatnonzero(np.frombuffer(block, np.uint8) == NEWLINE)
        if len(ends):
            border = int(ends[-1])
        if offset + len(block) - border > RECORD_MAX_BYTES:
            raise BadInput(source, "this line has more than 16 MiB", line=line + len(ends))
        yield ends, np.arange(line + 1, line + 1 + len(ends))
        line += len(ends)


def csv_borders(source: Source, start: int, size: int, first_line: int, delimiter: str) -> Borders:
    """Find where records of a CSV end; a newline in quotes is none.

    Raises:
        BadInput: a quote is never closed, or not within 16 MiB.
    """
    border, line = start, first_line
    try:
        for ends, lines in _borders_by_counting(source, start, size, first_line, ord(delimiter)):
            if len(ends):
                border, line = int(ends[-1]), int(lines[-1])
            yield ends, lines
    except _StrayQuoteError:
        yield from _borders_by_parsing(source, border, size, line, delimiter)


class _StrayQuoteError(Exception):
    """A quote stands within a field that is not quoted, so counting quotes does not tell where records end."""


def _blocks(source: Source, start: int, size: int) -> Iterator[tuple[int, bytes]]:
    offset = start
    with source.open() as file:
        file.seek(start)
        while block := file.read(min(SCAN_BYTES, size - offset)):
            yield offset, block
            offset += len(block)


def _borders_by_counting(source: Source, start: int, size: int, first_line: int, delimiter: int) -> Borders:
    """Find borders a block at a time: a newline between an odd and an even quote belongs to a field."""
    line, in_quotes, before = first_line, 0, NEWLINE
    border, border_line = start, first_line
    for offset, block in _blocks(source, start, size):
        codes = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(codes == NEWLINE)
        lines = np.arange(line + 1, line + 1 + len(ends))
        line += len(ends)
        if in_quotes or QUOTE in block:
            quotes = np.cumsum(codes == QUOTE, dtype=np.uint8) + np.uint8(in_quotes)  # wraps, parity stays
            _require_quotes_at_field_borders(codes, quotes, (before, delimiter))
            outside = quotes[ends] & 1 == 0
            ends, lines = ends[outside], lines[outside]
            in_quotes = int(quotes[-1]) & 1
        before = block[-1]
        if len(ends):
            border, border_line = offset + int(ends[-1]) + 1, int(lines[-1])
        yield offset + ends + 1, lines
        reached = offset + len(block)
        if reached - border > RECORD_MAX_BYTES or (reached == size and in_quotes):
            raise BadInput(source, "a quote is opened in this record and not closed", line=border_line)


def _require_quotes_at_field_borders(codes: np.ndarray, quotes: np.ndarray, around: tuple[int, int]) -> None:
    """Check that each quote that opens follows a delimiter, a newline, or the quote that it doubles."""
    before, delimiter = around
    opening = np.flatnonzero((codes == QUOTE) & (quotes & 1 == 1))
    previous = np.where(opening > 0, codes[opening - 1], before)
    if not np.isin(previous, (delimiter, NEWLINE, QUOTE)).all():
        raise _StrayQuoteError


def _borders_by_parsing(source: Source, start: int, size: int, first_line: int, delimiter: str) -> Borders:
    """Find borders record by record, as Python's csv reads them; slower by two orders."""
    lengths: list[int] = []
    with source.open() as raw:
        raw.seek(start)
        file = io.BufferedReader(raw, SCAN_BYTES)
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
                yield np.array(ends), np.array(lines)
                ends, lines = [], []
    yield np.array(ends, dtype=np.int64), np.array(lines, dtype=np.int64)


def _lines_with_lengths(file: IO[bytes], size: int, lengths: list[int]) -> Iterator[str]:
    """Yield lines for csv, noting their lengths in bytes; a lone CR, which csv refuses, is no border here either."""
    left = size
    while left and (line := file.readline(left)):
        left -= len(line)
        lengths.append(len(line))
        yield line.replace(b"\r", b" ").decode("latin-1")
