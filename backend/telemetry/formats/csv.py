"""CSV with a header: cut at record borders by byte offsets, read by Arrow, and row by row where Arrow finds a fault."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from telemetry.formats.base import (
    LABELS_MAX_BYTES,
    BadInput,
    Columns,
    Parsed,
    Reject,
    Slice,
    TextFormat,
    require_columns,
    require_unchanged,
    stamp_of,
)
from telemetry.formats.times import TIME_TYPE, BadTimeError

NEWLINE, QUOTE = ord("\n"), ord('"')
BOM = b"\xef\xbb\xbf"
SCAN_BYTES = 8 << 20
SAMPLE_BYTES = 256 << 10
RECORD_MAX_BYTES = 16 << 20
BORDERS_AT_ONCE = 10_000

csv.field_size_limit(RECORD_MAX_BYTES)  # Python's own, 131,072 characters, is less than Arrow takes


class CsvFormat:
    """Comma-separated values in UTF-8, with a header."""

    name = "csv"
    endings: tuple[str, ...] = (".csv",)

    def check(self, path: Path, columns: Columns) -> None:
        """Read the header and a sample of rows."""
        size = stamp_of(path)["size"]
        with path.open("rb") as file:
            head = file.read(SAMPLE_BYTES)
        _require_text(path, head, columns.text)
        header = _read_header(path, columns.text)
        require_columns(path, header.names, columns.all, line=1)
        body = head[header.length :]
        if len(head) < size:  # the last record of the sample may be cut off; a first one that fills it is not judged
            body = body[: body.rfind(b"\n") + 1]
        elif not body.strip():
            raise BadInput(path, "there is no row below the header")
        parsed = _parse(body, header.names, columns, first_line=header.lines + 1)
        if parsed.table.num_rows == 0 and parsed.rejects:
            first = parsed.rejects[0]
            raise BadInput(
                path,
                f"column {first.column!r}: {first.reason} (and none of the rows after it can be read)",
                line=first.line,
            )

    def cut(self, path: Path, batch_rows: int, columns: Columns) -> Iterator[Slice]:
        """Cut at record borders, found at the speed of memory."""
        stamp = stamp_of(path)
        header = _read_header(path, columns.text)
        start, first_line, rows = header.length, header.lines + 1, 0
        end = start
        for ends, next_lines in _record_borders(path, start, stamp["size"], first_line, columns.text):
            taken = 0
            while len(ends) - taken >= batch_rows - rows:
                last = taken + batch_rows - rows - 1
                end = int(ends[last])
                yield _slice(batch_rows, start, end, first_line, stamp)
                start, first_line, rows, taken = end, int(next_lines[last]), 0, last + 1
            if len(ends) > taken:
                rows += len(ends) - taken
                end = int(ends[-1])
        if start < stamp["size"]:
            yield _slice(rows + (end < stamp["size"]), start, stamp["size"], first_line, stamp)

    def read(self, path: Path, place: dict[str, Any], columns: Columns) -> Parsed:
        """Read a byte range."""
        require_unchanged(path, place["stamp"])
        with path.open("rb") as file:
            file.seek(place["offset"])
            data = file.read(place["length"])
        return _parse(data, _read_header(path, columns.text).names, columns, first_line=place["first_line"])


FORMAT = CsvFormat()


def _slice(row_count: int, start: int, end: int, first_line: int, stamp: dict[str, int]) -> Slice:
    return Slice(row_count, {"offset": start, "length": end - start, "first_line": first_line, "stamp": stamp})


# For each block of a file: the offsets just behind its records, and the numbers of the lines that begin there.
Borders = Iterator[tuple[np.ndarray, np.ndarray]]


class _StrayQuoteError(Exception):
    """A quote stands within a field that is not quoted, so counting quotes does not tell where records end."""


def _record_borders(path: Path, start: int, size: int, first_line: int, text: TextFormat) -> Borders:
    """Find where records end.

    Raises:
        BadInput: a quote is never closed, or not within 16 MiB.
    """
    border, line = start, first_line
    try:
        for ends, lines in _borders_by_counting(path, start, size, first_line, ord(text.delimiter)):
            if len(ends):
                border, line = int(ends[-1]), int(lines[-1])
            yield ends, lines
    except _StrayQuoteError:
        yield from _borders_by_parsing(path, border, size, line, text.delimiter)


def _borders_by_counting(path: Path, start: int, size: int, first_line: int, delimiter: int) -> Borders:
    """Find borders a block at a time: a newline between an odd and an even quote belongs to a field."""
    offset, line, in_quotes, before = start, first_line, 0, NEWLINE
    border, border_line = start, first_line
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(min(SCAN_BYTES, size - offset)):
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
            offset += len(block)
            if offset - border > RECORD_MAX_BYTES or (offset == size and in_quotes):
                raise BadInput(path, "a quote is opened in this record and not closed", line=border_line)


def _require_quotes_at_field_borders(codes: np.ndarray, quotes: np.ndarray, around: tuple[int, int]) -> None:
    """Check that each quote that opens follows a delimiter, a newline, or the quote that it doubles."""
    before, delimiter = around
    opening = np.flatnonzero((codes == QUOTE) & (quotes & 1 == 1))
    previous = np.where(opening > 0, codes[opening - 1], before)
    if not np.isin(previous, (delimiter, NEWLINE, QUOTE)).all():
        raise _StrayQuoteError


def _borders_by_parsing(path: Path, start: int, size: int, first_line: int, delimiter: str) -> Borders:
    """Find borders record by record, as Python's csv reads them; slower by two orders."""
    lengths: list[int] = []
    with path.open("rb") as file:
        file.seek(start)
        reader = csv.reader(_lines_with_lengths(file, size - start, lengths), delimiter=delimiter)
        end, line = start, first_line
        ends, lines = [], []
        while True:
            try:
                next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                raise BadInput(path, str(error), line=line) from None
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


@dataclass(frozen=True)
class _Header:
    names: list[str]
    length: int
    """in bytes, a byte order mark and the newline included"""
    lines: int


def _read_header(path: Path, text: TextFormat) -> _Header:
    with path.open("rb") as file:
        head = file.readline(SAMPLE_BYTES)
        if QUOTE in head:  # the record may go on in the next line
            head += file.read(SAMPLE_BYTES)
    begin = len(BOM) if head.startswith(BOM) else 0
    borders = _record_borders(path, begin, len(head), 1, text)
    length = next((int(ends[0]) for ends, _ in borders if len(ends)), len(head))
    line = head[begin:length].decode(text.encoding, "replace")
    names = next(csv.reader(line.splitlines(keepends=True), delimiter=text.delimiter), [])
    return _Header(names, length, max(1, line.count("\n")))


def _require_text(path: Path, head: bytes, text: TextFormat) -> None:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise BadInput(path, "this is UTF-16; allowed: UTF-8", line=1)
    if b"\0" in head:
        at = head.index(0)
        raise BadInput(path, f"this is no CSV file: byte {at} is NUL", line=head.count(b"\n", 0, at) + 1)
    if b"\r" in head and b"\n" not in head:
        raise BadInput(path, "its lines end in CR alone; allowed: LF, or CR and LF", line=1)
    try:
        head[: head.find(b"\n") + 1 or None].decode(text.encoding)
    except UnicodeDecodeError as error:
        at = error.start
        raise BadInput(
            path, f"this is no CSV file in {text.encoding}: byte {at} of its header is 0x{head[at]:02x}", line=1
        ) from None


def _parse(data: bytes, names: list[str], columns: Columns, *, first_line: int) -> Parsed:
    """Parse records; one by one only where parsing them at once finds a fault, to tell which and why."""
    table = _parse_at_once(data, names, columns)
    if table is not None:
        return Parsed(table, [])
    return _parse_row_by_row(data, names, columns, first_line)


def _parse_at_once(data: bytes, names: list[str], columns: Columns) -> pa.Table | None:
    """Parse with Arrow; None if any row has a fault, or has what Arrow and Python may see differently."""
    if b"\0" in data or (b"\r" in data and data.count(b"\r") != data.count(b"\r\n")):
        return None
    types: dict[str, pa.DataType] = {
        columns.time: columns.times.column_type,
        **dict.fromkeys(columns.labels, pa.string()),
        **dict.fromkeys(columns.values, pa.float64()),
    }
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(data),
            # One block: the slice is in memory already, and a record may span lines.
            read_options=pa_csv.ReadOptions(
                column_names=names, use_threads=False, block_size=len(data) + 1, encoding=columns.text.encoding
            ),
            parse_options=pa_csv.ParseOptions(delimiter=columns.text.delimiter, newlines_in_values=QUOTE in data),
            convert_options=pa_csv.ConvertOptions(
                column_types=types,
                include_columns=list(columns.all),
                null_values=list(columns.null_values),
                decimal_point=columns.text.decimal,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows == 0:
        return None
    times, is_time = columns.times.from_column(table[columns.time])
    if not (pc.all(is_time).as_py() and _is_plain(table, columns)):
        return None
    return table.set_column(0, columns.time, times)


def _is_plain(table: pa.Table, columns: Columns) -> bool:
    """Say whether no cell needs a closer look: labels present and short, numbers finite."""
    label_bytes = [pc.binary_length(table[name]) for name in columns.labels]
    return (
        all(pc.min(lengths).as_py() > 0 for lengths in label_bytes)
        and sum(pc.max(lengths).as_py() for lengths in label_bytes) <= LABELS_MAX_BYTES
        and all(pc.all(pc.is_finite(table[name])).as_py() is not False for name in columns.values)
    )


class _BadCellError(ValueError):
    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column = column


def _parse_row_by_row(data: bytes, names: list[str], columns: Columns, first_line: int) -> Parsed:
    """Parse with Python: what Arrow accepts is accepted here too, and a row with a fault is told from the others."""
    lines = [f"{line}\n" for line in data.decode(columns.text.encoding, "surrogateescape").split("\n")]
    reader = csv.reader(lines, delimiter=columns.text.delimiter)
    positions = {name: names.index(name) for name in columns.all}
    rows: list[tuple[Any, ...]] = []
    rejects: list[Reject] = []
    while (begin := reader.line_num) < len(lines):
        try:
            cells = next(reader)
            if cells and cells != ["\r"]:
                rows.append(_read_row(cells, names, positions, columns))
        except StopIteration:
            break
        except (csv.Error, _BadCellError) as fault:
            column = fault.column if isinstance(fault, _BadCellError) else ""
            raw = "".join(lines[begin : reader.line_num]).rstrip("\r\n")
            rejects.append(Reject(first_line + begin, column, str(fault), _printable(raw)))
    return Parsed(_table_of(rows, columns), rejects)


def _read_row(cells: list[str], names: list[str], positions: dict[str, int], columns: Columns) -> tuple[Any, ...]:
    if len(cells) != len(names):
        raise _BadCellError("", f"{len(cells)} cells, the header has {len(names)}")
    cell = {name: cells[position] for name, position in positions.items()}
    try:
        time = columns.times.from_text(_printable(cell[columns.time]))
    except BadTimeError as error:
        raise _BadCellError(columns.time, str(error)) from None
    labels = [_read_label(name, cell[name]) for name in columns.labels]
    if (size := sum(len(label.encode()) for label in labels)) > LABELS_MAX_BYTES:
        raise _BadCellError(columns.labels[0], f"its labels have {size} bytes; allowed: {LABELS_MAX_BYTES} together")
    values = [_read_value(name, cell[name], columns) for name in columns.values]
    return (time, *labels, *values)


def _read_label(column: str, text: str) -> str:
    if not text:
        raise _BadCellError(column, "the label is missing")
    if "\0" in text or not _is_unicode(text):
        raise _BadCellError(column, f"{_printable(text)!r} is not text in UTF-8, or has a NUL in it")
    return text


def _read_value(column: str, text: str, columns: Columns) -> float | None:
    if text in columns.null_values:
        return None
    decimal = columns.text.decimal
    try:
        if "_" in text or not text.isascii():  # Python reads these as numbers, no database does
            raise ValueError
        if decimal != "." and "." in text:
            raise ValueError
        value = float(text.replace(decimal, "."))
    except ValueError:
        raise _BadCellError(column, f"{_printable(text)!r} is no number") from None
    if math.isinf(value) and "inf" not in text.lower():
        raise _BadCellError(column, f"{text!r} is out of the range of a double")
    return value


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _printable(text: str) -> str:
    """Write bytes that are not UTF-8, and NUL, as escapes, so that PostgreSQL can keep the text."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def _table_of(rows: list[tuple[Any, ...]], columns: Columns) -> pa.Table:
    types = [TIME_TYPE, *[pa.string()] * len(columns.labels), *[pa.float64()] * len(columns.values)]
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(types)
    arrays = [pa.array(column, kind) for column, kind in zip(cells, types, strict=True)]
    return pa.table(dict(zip(columns.all, arrays, strict=True)))
