"""CSV with a header: cut at record borders by byte offsets, read by Arrow, and row by row where Arrow finds a fault."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from telemetry.formats.base import (
    TIME_TYPE,
    BadInput,
    Columns,
    Parsed,
    Reject,
    Slice,
    require_columns,
    require_file,
)

NEWLINE, QUOTE = ord("\n"), ord('"')
SCAN_BYTES = 8 << 20
SAMPLE_BYTES = 256 << 10


class CsvFormat:
    """Comma-separated values in UTF-8, with a header."""

    name = "csv"
    endings: tuple[str, ...] = (".csv",)

    def check(self, path: Path, columns: Columns) -> None:
        """Read the header and a sample of rows."""
        size = require_file(path)
        with path.open("rb") as file:
            head = file.read(SAMPLE_BYTES)
        _require_text(path, head)
        header = _read_header(path)
        require_columns(path, header.names, columns.all)
        body = head[header.length :]
        if len(head) < size:  # the last record of the sample may be cut off
            body = body[: body.rfind(b"\n") + 1]
        if not body.strip():
            raise BadInput(path, "there is no row below the header")
        parsed = _parse(body, header.names, columns, first_line=header.lines + 1)
        if parsed.table.num_rows == 0 and parsed.rejects:
            first = parsed.rejects[0]
            raise BadInput(
                path,
                f"column {first.column!r}: {first.reason} (and none of the rows after it can be read)",
                line=first.line,
            )

    def cut(self, path: Path, batch_rows: int) -> Iterator[Slice]:
        """Cut at record borders, found at the speed of memory."""
        size = require_file(path)
        header = _read_header(path)
        start, first_line, rows = header.length, header.lines + 1, 0
        end = start
        for ends, next_lines in _record_borders(path, start, size, first_line):
            taken = 0
            while len(ends) - taken >= batch_rows - rows:
                last = taken + batch_rows - rows - 1
                end = int(ends[last])
                yield _slice(batch_rows, start, end, first_line, size)
                start, first_line, rows, taken = end, int(next_lines[last]), 0, last + 1
            if len(ends) > taken:
                rows += len(ends) - taken
                end = int(ends[-1])
        if start < size:
            yield _slice(rows + (end < size), start, size, first_line, size)

    def read(self, path: Path, place: dict[str, Any], columns: Columns) -> Parsed:
        """Read a byte range."""
        if (size := require_file(path)) != place["file_size"]:
            raise BadInput(path, f"the file has changed: {place['file_size']} bytes when it was enqueued, {size} now")
        with path.open("rb") as file:
            file.seek(place["offset"])
            data = file.read(place["length"])
        return _parse(data, _read_header(path).names, columns, first_line=place["first_line"])


FORMAT = CsvFormat()


def _slice(row_count: int, start: int, end: int, first_line: int, file_size: int) -> Slice:
    place = {"offset": start, "length": end - start, "first_line": first_line, "file_size": file_size}
    return Slice(row_count, place)


def _record_borders(path: Path, start: int, size: int, first_line: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Find where records end.

    Yields, for each block of the file, the offsets just behind its records' last bytes, and the numbers of the lines
    that begin there. A newline between an odd and an even quote belongs to a field; a doubled quote keeps the parity.
    """
    offset, line, quotes_before = start, first_line, 0
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(min(SCAN_BYTES, size - offset)):
            codes = np.frombuffer(block, np.uint8)
            ends = np.flatnonzero(codes == NEWLINE)
            lines = np.arange(line + 1, line + 1 + len(ends))
            line += len(ends)
            if quotes_before or QUOTE in block:
                quotes = np.cumsum(codes == QUOTE, dtype=np.uint8) + np.uint8(quotes_before)  # wraps, parity stays
                outside = quotes[ends] & 1 == 0
                ends, lines = ends[outside], lines[outside]
                quotes_before = int(quotes[-1]) & 1
            yield offset + ends + 1, lines
            offset += len(block)


@dataclass(frozen=True)
class _Header:
    names: list[str]
    length: int
    """in bytes, its newline included"""
    lines: int


def _read_header(path: Path) -> _Header:
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
    length = next((int(ends[0]) for ends, _ in _record_borders(path, 0, len(head), 1) if len(ends)), len(head))
    text = head[:length].decode("utf-8", "replace")
    return _Header(next(csv.reader(text.splitlines(keepends=True)), []), length, max(1, text.count("\n")))


def _require_text(path: Path, head: bytes) -> None:
    if b"\0" in head:
        raise BadInput(
            path, f"this is no CSV file: byte {head.index(0)} is NUL", line=head.count(b"\n", 0, head.index(0)) + 1
        )
    try:
        head[: head.find(b"\n") + 1 or None].decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(
            path, f"this is no CSV file in UTF-8: byte {error.start} of its header is 0x{head[error.start]:02x}", line=1
        ) from None


def _parse(data: bytes, names: list[str], columns: Columns, *, first_line: int) -> Parsed:
    """Parse records; line by line only where parsing them at once finds a fault, to tell which and why."""
    table = None if b"\0" in data else _parse_at_once(data, names, columns)
    if table is not None:
        return Parsed(table, [])
    return _parse_row_by_row(data, names, columns, first_line)


def _parse_at_once(data: bytes, names: list[str], columns: Columns) -> pa.Table | None:
    """Parse with Arrow; None if any row has a fault."""
    types: dict[str, pa.DataType] = {
        columns.time: TIME_TYPE,
        **dict.fromkeys(columns.labels, pa.string()),
        **dict.fromkeys(columns.values, pa.float64()),
    }
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(data),
            # One block: the slice is in memory already, and a record may span lines.
            read_options=pa_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1),
            parse_options=pa_csv.ParseOptions(newlines_in_values=QUOTE in data),
            convert_options=pa_csv.ConvertOptions(
                column_types=types, include_columns=list(columns.all), null_values=list(columns.null_values)
            ),
        )
    except pa.ArrowInvalid:
        return None
    missing = table[columns.time].null_count or any(
        pc.any(pc.equal(table[name], "")).as_py() for name in columns.labels
    )
    return None if missing else table


class _BadCell(ValueError):
    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column = column


def _parse_row_by_row(data: bytes, names: list[str], columns: Columns, first_line: int) -> Parsed:
    """Parse with Python: what Arrow accepts is accepted here too, and a row with a fault is told from the others."""
    lines = [f"{line}\n" for line in data.decode("utf-8", "surrogateescape").split("\n")]
    reader = csv.reader(lines)
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
        except (csv.Error, _BadCell) as fault:
            column = fault.column if isinstance(fault, _BadCell) else ""
            raw = "".join(lines[begin : reader.line_num]).rstrip("\r\n")
            rejects.append(Reject(first_line + begin, column, str(fault), _printable(raw)))
    return Parsed(_table_of(rows, columns), rejects)


def _read_row(cells: list[str], names: list[str], positions: dict[str, int], columns: Columns) -> tuple[Any, ...]:
    if len(cells) != len(names):
        raise _BadCell("", f"{len(cells)} cells, the header has {len(names)}")
    cell = {name: cells[position] for name, position in positions.items()}
    time = _read_time(columns.time, cell[columns.time])
    labels = [_read_label(name, cell[name]) for name in columns.labels]
    values = [_read_value(name, cell[name], columns.null_values) for name in columns.values]
    return (time, *labels, *values)


def _read_time(column: str, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise _BadCell(column, f"{_printable(text)!r} is no time; allowed: 2013-01-31T06:00:00Z (ISO 8601)") from None
    if time.tzinfo is None:
        raise _BadCell(column, f"{text!r} has no zone; allowed: an offset at its end, as Z or +01:00")
    return time.astimezone(UTC)


def _read_label(column: str, text: str) -> str:
    if not text:
        raise _BadCell(column, "the label is missing")
    if "\0" in text or not _is_unicode(text):
        raise _BadCell(column, f"{_printable(text)!r} is not text in UTF-8, or has a NUL in it")
    return text


def _read_value(column: str, text: str, null_values: tuple[str, ...]) -> float | None:
    if text in null_values:
        return None
    try:
        if "_" in text or not text.isascii():  # Python reads these as numbers, no database does
            raise ValueError
        value = float(text)
    except ValueError:
        raise _BadCell(column, f"{_printable(text)!r} is no number") from None
    if math.isinf(value) and "inf" not in text.lower():
        raise _BadCell(column, f"{text!r} is out of the range of a double")
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
