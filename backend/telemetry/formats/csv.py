"""CSV with a header: cut between records by byte offsets, parsed by Arrow, or row by row if Arrow finds an error."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from telemetry.formats.base import Columns, Parsed, Slice, TextFormat, is_plain, require_columns, require_some_row
from telemetry.formats.borders import Block, first_piece, pieces, slices
from telemetry.formats.faults import FaultError
from telemetry.formats.quoting import BLANKS, CR, QUOTE, Dialect
from telemetry.formats.rows import Gathered
from telemetry.formats.source import BadInput, Source

# Otherwise Arrow handles SIGINT and SIGTERM while it reads, and loses a signal that arrives while reading fails. This
# process handles them itself, between two pieces.
pa.enable_signal_handlers(False)

BOM = b"\xef\xbb\xbf"
SAMPLE_BYTES = 256 << 10
HEADER_BYTES = 1 << 10  # where most headers end


class CsvFormat:
    """Comma-separated values in UTF-8, with a header."""

    name = "csv"
    endings: tuple[str, ...] = (".csv",)

    def check(self, source: Source, columns: Columns) -> None:
        """Check the header and a sample of rows."""
        size = source.stamp().size_bytes
        with source.open() as file:
            head = file.read(SAMPLE_BYTES)
        _require_text(source, head)
        header = _read_header(source, columns.text)
        if not all(map(header.has, columns.all)):  # undecodable bytes in the names of other columns do not matter
            _require_decodable(source, head, columns.text)
        header.require(source, columns)
        body = head[header.length :]
        is_whole = len(head) == size
        if is_whole and not body.strip():
            raise BadInput(source, "the file has a header but no rows")
        # The last record of a sample may be cut off; if the first one fills the sample, no row is checked.
        borders = _dialect(columns.text).find(body, is_last=is_whole)
        if borders.count:
            end, _ = borders.at(-1)
            sample = Block(header.length, header.lines + 1, memoryview(body)[:end], borders)
            require_some_row(source, _parse(sample, header, columns))

    def cut(self, source: Source, batch_rows: int, columns: Columns) -> Iterator[Slice]:
        """Yield slices of whole records."""
        header = _read_header(source, columns.text)
        yield from slices(source, header.length, header.lines + 1, batch_rows, _dialect(columns.text).find)

    def read(self, source: Source, place: dict[str, Any], columns: Columns) -> Iterator[Parsed]:
        """Yield the parsed pieces of a byte range."""
        header = _read_header(source, columns.text)
        for piece in pieces(source, place, _dialect(columns.text).find):
            yield from _parse(piece, header, columns)

    def sample(self, source: Source, part: Slice, columns: Columns, row_limit: int) -> Iterator[Parsed]:
        """Yield the beginning of a byte range, unless its first record is too long."""
        if piece := first_piece(source, part, _dialect(columns.text).find, row_limit):
            yield from _parse(piece, _read_header(source, columns.text), columns)


FORMAT = CsvFormat()


def _dialect(text: TextFormat) -> Dialect:
    return Dialect(text.delimiter, text.escape)


@dataclass(frozen=True)
class _Header:
    names: list[str]
    length: int
    """in bytes, including a byte order mark and the newline"""
    lines: int

    def require(self, source: Source, columns: Columns) -> None:
        """Check that the header has each of the columns once."""
        names = [next((wanted for wanted in columns.all if _is_named(wanted, name)), name) for name in self.names]
        require_columns(source, names, columns.all, line=1)

    def has(self, wanted: str) -> bool:
        """Return True if there is a column of that name."""
        return any(_is_named(wanted, name) for name in self.names)

    def position(self, wanted: str) -> int:
        """Return the index of a column in a row; blanks around its name do not matter."""
        return next(position for position, name in enumerate(self.names) if _is_named(wanted, name))


def _is_named(wanted: str, name: str) -> bool:
    return wanted.strip(BLANKS) == name.strip(BLANKS)


def _read_header(source: Source, text: TextFormat) -> _Header:
    with source.open() as file:
        head = file.read(SAMPLE_BYTES)
    begin = len(BOM) if head.startswith(BOM) else 0
    record = _first_record(head[begin:], text)
    length = begin + len(record)
    if length == SAMPLE_BYTES:
        raise BadInput(source, f"the header must have fewer than {SAMPLE_BYTES:,} bytes", line=1)
    try:
        names = [name.decode(text.encoding, "replace") for name in _dialect(text).split(record)]
    except FaultError as error:
        raise BadInput(source, f"cannot read the header: {error}", line=1) from None
    return _Header(names, length, max(1, record.count(b"\n")))


def _first_record(head: bytes, text: TextFormat) -> bytes:
    searched = HEADER_BYTES
    while True:
        borders = _dialect(text).find(head[:searched], is_last=searched >= len(head))
        if borders.count or searched >= len(head):
            return head[: borders.at(0)[0]] if borders.count else b""
        searched *= 2


def _require_text(source: Source, head: bytes) -> None:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise BadInput(source, "expected UTF-8 or a single-byte encoding, got UTF-16; convert the file", line=1)
    if (at := head.partition(b"\n")[0].find(0)) >= 0:  # after the header, a NUL only rejects its own row
        raise BadInput(source, f"not a CSV file: byte {at} is a NUL character", line=1)
    if b"\r" in head and b"\n" not in head:
        raise BadInput(source, "expected lines that end in LF or CR LF, got lines that end in CR", line=1)


def _require_decodable(source: Source, head: bytes, text: TextFormat) -> None:
    try:
        head[: head.find(b"\n") + 1 or None].decode(text.encoding)
    except UnicodeDecodeError as error:
        at = error.start
        raise BadInput(
            source,
            f"the header is not valid {text.encoding}: byte {at} is 0x{head[at]:02x}; set the option encoding",
            line=1,
        ) from None


def _parse(block: Block, header: _Header, columns: Columns) -> Iterator[Parsed]:
    """Parse records; if any has an error, parse them one by one to find out which and why."""
    parsed = _parse_at_once(block, header, columns)
    if parsed is not None:
        yield parsed
    else:
        yield from _parse_row_by_row(block, header, columns)


def _parse_at_once(block: Block, header: _Header, columns: Columns) -> Parsed | None:
    """Parse with Arrow; return None if a row has an error, or something that Arrow and Python treat differently."""
    if not (block.borders.is_regular and _is_clean(block.data, columns.text.escape)):
        return None
    data = _dialect(columns.text).trimmed(block.data)
    if data is None:
        return None
    for time_type in columns.times.column_types:
        table = _read_table(data, header, columns, time_type)
        if table is not None and table.num_rows:
            break
    else:
        return None
    times, is_time = columns.times.from_column(table[columns.time])
    if not (pc.all(is_time).as_py() and is_plain(table, columns)):
        return None
    cut_off_ns = columns.times.cut_off_ns(table[columns.time])
    return Parsed(table.set_column(0, columns.time, times), [], cut_off_ns)


def _is_clean(data: memoryview, escape: str) -> bool:
    """Return True if there is no NUL, no escaped line end, and no carriage return except before a newline."""
    codes = np.frombuffer(data, np.uint8)
    if codes.min(initial=1) == 0:
        return False
    if not (escape or (codes == CR).any()):
        return True
    text = bytes(data) + b"\n"
    is_escaped = escape and (f"{escape}\n".encode() in text or f"{escape}\r".encode() in text)
    return text.count(b"\r") == text.count(b"\r\n") and not is_escaped


def _read_table(data: bytes | memoryview, header: _Header, columns: Columns, time_type: pa.DataType) -> pa.Table | None:
    # Columns are named by their positions, since names of columns that are not read may be equal.
    positions = [str(header.position(name)) for name in columns.all]
    has_quotes = bool((np.frombuffer(data, np.uint8) == QUOTE).any())
    kinds = [time_type, *[pa.string()] * len(columns.labels), *[pa.float64()] * len(columns.values)]
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(data),
            # One block, since the piece is in memory already, and a record may span lines.
            read_options=pa_csv.ReadOptions(
                column_names=[str(position) for position in range(len(header.names))],
                use_threads=False,
                block_size=len(data) + 1,
                encoding=columns.text.encoding,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=columns.text.delimiter,
                escape_char=columns.text.escape or False,
                newlines_in_values=has_quotes,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict(zip(positions, kinds, strict=True)),
                include_columns=positions,
                null_values=sorted(columns.empty_texts),
                decimal_point=columns.text.decimal,
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    return table.rename_columns(list(columns.all))


def _parse_row_by_row(block: Block, header: _Header, columns: Columns) -> Iterator[Parsed]:
    """Parse with Python, which accepts what Arrow accepts, and rejects single rows."""
    dialect, gathered = _dialect(columns.text), Gathered(columns)
    positions = {name: header.position(name) for name in columns.all}

    def decoded(text: bytes) -> str:
        return text.decode(columns.text.encoding, "surrogateescape")

    for line, record in block.records():
        if dialect.is_blank(record):
            continue
        try:
            cells = dialect.split(record, len(header.names))
            gathered.add({name: decoded(cells[position]) for name, position in positions.items()})
        except FaultError as error:
            gathered.reject(line, error, record)
        if gathered.is_full:
            yield gathered.take()
    yield gathered.take()
