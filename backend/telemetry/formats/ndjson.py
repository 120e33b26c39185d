"""NDJSON: cut between lines by byte offsets, parsed by Arrow, or line by line if Arrow finds an error.

The format: https://github.com/ndjson/ndjson-spec. NaN and Infinity, which many programs write, are empty, as in CSV.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from telemetry.formats.base import (
    NOT_FINITE,
    Columns,
    Parsed,
    Slice,
    is_plain,
    require_columns,
    require_default_text,
    require_some_row,
    without_nan,
)
from telemetry.formats.borders import Block, first_piece, pieces, slices
from telemetry.formats.faults import Fault, FaultError
from telemetry.formats.quoting import BLANKS, CR, NEWLINE, Lines
from telemetry.formats.rows import Gathered, printable
from telemetry.formats.source import BadInput, Source
from telemetry.formats.times import EXAMPLE

SAMPLE_BYTES = 256 << 10
SAMPLE_LINES = 1000
# Python's objects take up to a hundred times the memory of their text, and each of these characters may create one.
# The limits also apply to lines that Arrow parses.
LINE_MAX_BYTES = 1 << 20
MARKS = b"{[,:"
MARKS_MAX = 100_000
BOM = "\ufeff"
TRAILING_COMMA = re.compile(r",\s*\}\s*$")


class _Number(str):
    """The text of a number in the file, which a float might not represent exactly."""

    __slots__ = ()


class _Object(dict[str, Any]):
    """A JSON object, with the names that occur in it more than once."""

    __slots__ = ("duplicates",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.duplicates: frozenset[str] = frozenset() if len(self) == len(pairs) else _repeated(pairs)


def _repeated(pairs: list[tuple[str, Any]]) -> frozenset[str]:
    return frozenset(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)


class NdjsonFormat:
    """JSON objects, one per line, in UTF-8."""

    name = "ndjson"
    endings: tuple[str, ...] = (".ndjson", ".jsonl")

    def check(self, source: Source, columns: Columns) -> None:
        """Check a sample of lines."""
        require_default_text(source, columns)
        size = source.stamp().size_bytes
        with source.open() as file:
            head = file.read(SAMPLE_BYTES)
        if len(head) < size:  # its last line may be cut off
            head = head[: head.rfind(b"\n") + 1]
        try:
            first = _object_of(head.lstrip().partition(b"\n")[0], "replace")
        except FaultError as error:
            raise BadInput(source, f"not an NDJSON file: {error}", line=1) from None
        require_columns(source, list(first), (columns.time, *columns.labels), line=1)
        names = _names_in(head)
        require_columns(source, names, columns.values)
        lines = Lines(head, is_last=True)
        require_some_row(source, _parse(Block(0, 1, memoryview(head), lines), columns))

    def cut(self, source: Source, batch_rows: int, columns: Columns) -> Iterator[Slice]:
        """Yield slices of whole lines."""
        yield from slices(source, 0, 1, batch_rows, Lines)

    def read(self, source: Source, place: dict[str, Any], columns: Columns) -> Iterator[Parsed]:
        """Yield the parsed pieces of a byte range."""
        for piece in pieces(source, place, Lines):
            yield from _parse(piece, columns)

    def sample(self, source: Source, part: Slice, columns: Columns, row_limit: int) -> Iterator[Parsed]:
        """Yield the beginning of a byte range, unless its first line is too long."""
        if piece := first_piece(source, part, Lines, row_limit):
            yield from _parse(piece, columns)


FORMAT = NdjsonFormat()


def _names_in(head: bytes) -> list[str]:
    """Return the names in the first lines, since an object may omit names without a value."""
    names: dict[str, None] = {}
    for line in head.split(b"\n", SAMPLE_LINES)[:SAMPLE_LINES]:
        with suppress(FaultError):
            names |= dict.fromkeys(_object_of(line, "replace"))
    return list(names)


def _parse(block: Block, columns: Columns) -> Iterator[Parsed]:
    """Parse lines; if any has an error, parse them one by one to find out which and why."""
    parsed = _parse_at_once(bytes(block.data), columns) if _has_small_lines(block) else None
    if parsed is not None:
        yield parsed
    else:
        yield from _parse_line_by_line(block, columns)


def _has_small_lines(block: Block) -> bool:
    ends = block.borders.ends
    begins = np.concatenate(([0], ends[:-1]))
    is_long = ends - begins > MARKS_MAX
    try:
        for begin, end in zip(begins[is_long], ends[is_long], strict=True):
            _require_small(bytes(block.data[begin:end]))
    except FaultError:
        return False
    return True


def _require_small(line: bytes) -> None:
    """Refuse a line that takes much memory in Python.

    Raises:
        FaultError: it is too long, or has too many values.
    """
    if len(line) > LINE_MAX_BYTES:
        raise FaultError(Fault.LARGE_RECORD, f"the line has {len(line):,} bytes, the limit is {LINE_MAX_BYTES:,}")
    if len(line) > MARKS_MAX and (marks := sum(map(line.count, MARKS))) > MARKS_MAX:
        shown = " ".join(MARKS.decode())
        raise FaultError(
            Fault.LARGE_RECORD, f"the line has {marks:,} of the characters {shown} in total, the limit is {MARKS_MAX:,}"
        )


def _parse_at_once(data: bytes, columns: Columns) -> Parsed | None:
    """Parse with Arrow; return None if a line has an error, or something that Arrow and Python treat differently."""
    if b"\0" in data or b"\\u0000" in data or b"-NaN" in data or not _are_objects_of_a_line(data):
        return None
    table = _read_table(data, columns)
    if table is None:
        return None
    for position, name in enumerate(columns.labels, start=1):
        table = table.set_column(position, name, table[name].cast(pa.string()))
    times, is_time = columns.times.from_column(table[columns.time])
    if not (pc.all(is_time).as_py() and is_plain(table, columns)):
        return None
    return Parsed(table.set_column(0, columns.time, times), [], columns.times.cut_off_ns(table[columns.time]))


def _are_objects_of_a_line(data: bytes) -> bool:
    """Return True if each line begins with { and ends with }, so that no line is blank and no object spans lines.

    If there are as many objects as lines, each line has exactly one.
    """
    codes = np.frombuffer(b"\n%s\n" % data.removeprefix(BOM.encode()).removesuffix(b"\n"), np.uint8)
    newlines = np.flatnonzero(codes == NEWLINE)
    ends = newlines[1:] - 1
    ends -= codes[ends] == CR
    return bool((codes[newlines[:-1] + 1] == ord("{")).all() and (codes[ends] == ord("}")).all())


def _read_table(data: bytes, columns: Columns) -> pa.Table | None:
    schema = pa.schema(
        [
            (columns.time, pa.string() if columns.times.unit == "iso" else pa.int64()),
            *((name, _label_type(data, name)) for name in columns.labels),
            *((name, pa.float64()) for name in columns.values),
        ]
    )
    try:
        table = pa_json.read_json(
            pa.BufferReader(data),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        ).select(columns.all)
        if not data.isascii():
            table.validate(full=True)  # Arrow's parser accepts bytes that are not valid UTF-8
    except pa.ArrowInvalid:
        return None
    if table.num_rows != data.count(b"\n") + (not data.endswith(b"\n")):
        return None  # a line has several objects
    for position, name in enumerate(columns.values, start=1 + len(columns.labels)):
        if not pc.any(pc.is_inf(table[name])).as_py():  # Arrow accepts "Inf", Python's parser does not
            table = table.set_column(position, name, without_nan(table[name], columns))
    return _with_times(table, columns)


def _with_times(table: pa.Table, columns: Columns) -> pa.Table | None:
    for kind in columns.times.column_types:
        try:
            return table.set_column(0, columns.time, table[columns.time].cast(kind))
        except pa.ArrowInvalid:
            continue
    return None


def _label_type(data: bytes, name: str) -> pa.DataType:
    """Return the type as which Arrow reads a label: its type in the first line."""
    try:
        label = _object_of(data[: data.find(b"\n") + 1 or None]).get(name)
    except FaultError:
        return pa.string()
    if isinstance(label, bool):
        return pa.bool_()
    return pa.int64() if isinstance(label, _Number) else pa.string()


def _parse_line_by_line(block: Block, columns: Columns) -> Iterator[Parsed]:
    """Parse with Python, which accepts what Arrow accepts, and rejects single lines."""
    gathered = Gathered(columns)
    for number, line in block.records():
        if not line.strip(f"{BLANKS}\r\n".encode()):
            continue
        try:
            gathered.add(_cells(_object_of(line), columns))
        except FaultError as error:
            gathered.reject(number, error, line)
        if gathered.is_full:
            yield gathered.take()
    yield gathered.take()


def _cells(found: _Object, columns: Columns) -> dict[str, str | None]:
    if duplicates := found.duplicates.intersection(columns.all):
        names = ", ".join(map(repr, sorted(duplicates)))
        raise FaultError(Fault.BROKEN_RECORD, f"the object has the name {names} more than once")
    cells: dict[str, str | None] = {columns.time: _time_text(columns, found.get(columns.time))}
    cells |= {name: _label_text(name, found.get(name)) for name in columns.labels}
    return cells | {name: _value_text(name, found.get(name), columns) for name in columns.values}


def _object_of(line: bytes, errors: str = "surrogateescape") -> _Object:
    """Return the JSON object of a line, with numbers as text.

    Raises:
        FaultError: the line is not a JSON object, or is too large.
    """
    _require_small(line)
    text = line.decode("utf-8", errors).rstrip("\r\n")
    text = TRAILING_COMMA.sub("}", text.removeprefix(BOM))  # Arrow accepts a trailing comma
    try:
        found = json.loads(
            text, parse_int=_Number, parse_float=_Number, parse_constant=_Number, object_pairs_hook=_Object
        )
    except (json.JSONDecodeError, RecursionError) as error:
        raise FaultError(Fault.BROKEN_RECORD, f"not valid JSON: {error}") from None
    if not isinstance(found, _Object):
        raise FaultError(Fault.BROKEN_RECORD, "not a JSON object")
    return found


def _time_text(columns: Columns, value: object) -> str | None:
    if value is None:
        raise FaultError(Fault.UNREADABLE_TIME, "the time is missing", columns.time)
    if not isinstance(value, str) or (isinstance(value, _Number) and columns.times.unit == "iso"):
        detail = (
            f"expected a time such as {json.dumps(EXAMPLE)} (ISO 8601), or a number with the option time-unit, got "
            f"{_shown(value)}"
        )
        raise FaultError(Fault.UNREADABLE_TIME, detail, columns.time)
    return value


def _label_text(column: str, value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, _Number):
        try:
            return str(int(value))
        except ValueError:
            pass
    elif value is None or isinstance(value, str):
        return value
    detail = f"expected a string, an integer or a boolean as a label, got {_shown(value)}"
    raise FaultError(Fault.UNREADABLE_LABEL, detail, column)


def _value_text(column: str, value: object, columns: Columns) -> str | None:
    if value is None or isinstance(value, _Number) or (isinstance(value, str) and _is_text_of_value(value, columns)):
        return value
    raise FaultError(Fault.UNREADABLE_NUMBER, f"expected a number, got {_shown(value)}", column)


def _is_text_of_value(text: str, columns: Columns) -> bool:
    """Return True if a text means an empty cell, or NaN or infinity, which JSON cannot express as numbers."""
    return text.strip(BLANKS) in columns.empty_texts.union(NOT_FINITE)


def _shown(value: object) -> str:
    return value if isinstance(value, _Number) else printable(json.dumps(value, ensure_ascii=False))
