"""CSV with a header: cut at record borders by byte offsets, read by Arrow, and row by row where Arrow finds a fault."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from telemetry.formats.base import Columns, Parsed, Slice, TextFormat, is_plain, require_columns, require_some_row
from telemetry.formats.borders import QUOTE, csv_borders, pieces, read_head, read_slice, slices
from telemetry.formats.faults import Fault, FaultError, Reject
from telemetry.formats.rows import Row, make_row, printable, table_of
from telemetry.formats.source import BadInput, Source

BOM = b"\xef\xbb\xbf"
CR = ord("\r")
SAMPLE_BYTES = 256 << 10


class CsvFormat:
    """Comma-separated values in UTF-8, with a header."""

    name = "csv"
    endings: tuple[str, ...] = (".csv",)

    def check(self, source: Source, columns: Columns) -> None:
        """Read the header and a sample of rows."""
        size = source.stamp().size_bytes
        with source.open() as file:
            head = file.read(SAMPLE_BYTES)
        _require_text(source, head, columns.text)
        header = _read_header(source, columns.text)
        require_columns(source, header.names, columns.all, line=1)
        body = head[header.length :]
        if len(head) < size:  # the last record of the sample may be cut off; a first one that fills it is not judged
            body = body[: body.rfind(b"\n") + 1]
        elif not body.strip():
            raise BadInput(source, "there is no row below the header")
        parsed = _parse(pa.py_buffer(body), header.names, columns, first_line=header.lines + 1)
        require_some_row(source, parsed)

    def cut(self, source: Source, batch_rows: int, columns: Columns) -> Iterator[Slice]:
        """Cut at record borders, found at the speed of memory."""
        size = source.stamp().size_bytes
        header = _read_header(source, columns.text)
        start, first_line = header.length, header.lines + 1
        borders = csv_borders(source, start, size, first_line, columns.text.delimiter)
        yield from slices(borders, start, size, first_line, batch_rows)

    def read(self, source: Source, place: dict[str, Any], columns: Columns) -> Iterator[Parsed]:
        """Read a byte range; in one piece if there are quotes, in which a newline may be no border."""
        names = _read_header(source, columns.text).names
        data, first_line = read_slice(source, place), place["first_line"]
        has_quotes = (np.frombuffer(data, np.uint8) == QUOTE).any()
        for piece, line in [(data, first_line)] if has_quotes else pieces(data, first_line):
            yield _parse(piece, names, columns, first_line=line)

    def sample(self, source: Source, part: Slice, columns: Columns, row_limit: int) -> Iterator[Parsed]:
        """Read the first lines of a byte range."""
        names = _read_header(source, columns.text).names
        yield _parse(read_head(source, part, row_limit), names, columns, first_line=part.place["first_line"])


FORMAT = CsvFormat()


@dataclass(frozen=True)
class _Header:
    names: list[str]
    length: int
    """in bytes, a byte order mark and the newline included"""
    lines: int


def _read_header(source: Source, text: TextFormat) -> _Header:
    with source.open() as file:
        head = file.read(SAMPLE_BYTES)
    begin = len(BOM) if head.startswith(BOM) else 0
    length = head.find(b"\n") + 1 or len(head)
    if QUOTE in head[:length]:  # the record may go on in the next line
        borders = csv_borders(source, begin, len(head), 1, text.delimiter)
        length = next((found.at(0)[0] for found in borders if found.count), len(head))
    if length == SAMPLE_BYTES:
        raise BadInput(source, f"its header has {SAMPLE_BYTES:,} bytes or more", line=1)
    line = head[begin:length].decode(text.encoding, "replace")
    names = next(csv.reader(io.StringIO(line, newline=""), delimiter=text.delimiter), [])
    return _Header(names, length, max(1, line.count("\n")))


def _require_text(source: Source, head: bytes, text: TextFormat) -> None:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise BadInput(source, "this is UTF-16; allowed: UTF-8", line=1)
    if b"\0" in head:
        at = head.index(0)
        raise BadInput(source, f"this is no CSV file: byte {at} is NUL", line=head.count(b"\n", 0, at) + 1)
    if b"\r" in head and b"\n" not in head:
        raise BadInput(source, "its lines end in CR alone; allowed: LF, or CR and LF", line=1)
    try:
        head[: head.find(b"\n") + 1 or None].decode(text.encoding)
    except UnicodeDecodeError as error:
        at = error.start
        raise BadInput(
            source, f"this is no CSV file in {text.encoding}: byte {at} of its header is 0x{head[at]:02x}", line=1
        ) from None


def _parse(data: pa.Buffer, names: list[str], columns: Columns, *, first_line: int) -> Parsed:
    """Parse records; one by one only where parsing them at once finds a fault, to tell which and why."""
    table = _parse_at_once(data, names, columns)
    if table is not None:
        return Parsed(table, [])
    return _parse_row_by_row(data.to_pybytes(), names, columns, first_line)


def _parse_at_once(data: pa.Buffer, names: list[str], columns: Columns) -> pa.Table | None:
    """Parse with Arrow; None if any row has a fault, or has what Arrow and Python may see differently."""
    codes = np.frombuffer(data, np.uint8)
    if codes.min(initial=1) == 0 or ((codes == CR).any() and not _has_cr_before_lf_alone(data.to_pybytes())):
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
                column_names=names, use_threads=False, block_size=data.size + 1, encoding=columns.text.encoding
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=columns.text.delimiter, newlines_in_values=bool((codes == QUOTE).any())
            ),
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
    if not (pc.all(is_time).as_py() and is_plain(table, columns)):
        return None
    return table.set_column(0, columns.time, times)


def _has_cr_before_lf_alone(data: bytes) -> bool:
    return data.count(b"\r") == data.count(b"\r\n")


def _parse_row_by_row(data: bytes, names: list[str], columns: Columns, first_line: int) -> Parsed:
    """Parse with Python: what Arrow accepts is accepted here too, and a row with a fault is told from the others."""
    lines = [f"{line}\n" for line in data.decode(columns.text.encoding, "surrogateescape").split("\n")]
    reader = csv.reader(lines, delimiter=columns.text.delimiter)
    positions = {name: names.index(name) for name in columns.all}
    rows: list[Row] = []
    rejects: list[Reject] = []
    while (begin := reader.line_num) < len(lines):
        try:
            cells = next(reader)
            if cells and cells != ["\r"]:
                _require_cells(cells, names)
                rows.append(make_row({name: cells[position] for name, position in positions.items()}, columns))
        except StopIteration:
            break
        except (csv.Error, FaultError) as error:
            fault = error if isinstance(error, FaultError) else FaultError(Fault.BROKEN_RECORD, str(error))
            raw = "".join(lines[begin : reader.line_num]).rstrip("\r\n")
            rejects.append(Reject(first_line + begin, fault.column, fault.fault, str(fault), printable(raw)))
    return Parsed(table_of(rows, columns), rejects)


def _require_cells(cells: list[str], names: list[str]) -> None:
    if len(cells) != len(names):
        raise FaultError(Fault.RAGGED_ROW, f"{len(cells)} cells, the header has {len(names)}")
