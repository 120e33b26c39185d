"""Tables whose columns have types, as Parquet and Arrow files hold them: what is asked of types and of rows."""

from collections.abc import Iterable, Iterator
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from telemetry.formats.base import (
    LABELS_MAX_BYTES,
    Columns,
    Parsed,
    require_columns,
    require_default_text,
    without_nan,
)
from telemetry.formats.faults import REJECT_MAX_LENGTH, Fault, Reject
from telemetry.formats.memory import labels_max_bytes, piece_rows
from telemetry.formats.source import BadInput, Source


def check_schema(source: Source, schema: pa.Schema, columns: Columns) -> None:
    """Refuse a file whose columns have types of which no reading can be made.

    Raises:
        BadInput: names the column, its type, and what is allowed.
    """
    require_default_text(source, columns)
    require_columns(source, schema.names, columns.all)
    _require_time(source, columns, schema.field(columns.time).type)
    for name in columns.labels:
        if not _is_text(kind := schema.field(name).type):
            raise BadInput(source, f"column {name!r} is {kind}; allowed: strings, integers and booleans")
    for name in columns.values:
        if not _is_number(kind := schema.field(name).type):
            raise BadInput(source, f"column {name!r} is {kind}; allowed: integers, floats and decimals")


def _require_time(source: Source, columns: Columns, kind: pa.DataType) -> None:
    wanted = columns.times
    if wanted.unit != "iso":
        if not pa.types.is_integer(kind):
            raise BadInput(source, f"column {columns.time!r} is {kind}; allowed with the option time-unit: integers")
    elif not pa.types.is_timestamp(kind):
        raise BadInput(
            source, f"column {columns.time!r} is {kind}; allowed: a timestamp, or with the option time-unit an integer"
        )
    elif kind.tz is None and not wanted.timezone:
        raise BadInput(source, f"column {columns.time!r} has no zone; allowed: one that has, or the option timezone")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_string = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(is_string or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def parse_batches(batches: Iterable[pa.RecordBatch], columns: Columns, first_row: int) -> Iterator[Parsed]:
    """Parse the rows of a slice.

    Args:
        batches: with the columns of `Columns.all` in any order, as `check_schema` lets them pass.
        columns: how they are to be read.
        first_row: how many rows of the file come before them.

    Raises:
        pyarrow.ArrowInvalid: the data breaks its own format, as with bytes in a string that are not UTF-8.
    """
    for batch in batches:
        next_row = first_row + batch.num_rows
        for start, piece in _pieces(batch.select(columns.all), columns):
            yield _parse(piece, columns, first_row + start)
        first_row = next_row
        del batch  # before the next one is read


def _pieces(batch: pa.RecordBatch, columns: Columns) -> Iterator[tuple[int, pa.Table]]:
    """Divide rows of a batch into pieces that are bounded by cells and by the bytes of their labels.

    A piece holds copies: what is made of it may live on while the next batch is read, and must not keep the whole one.
    """
    step = piece_rows(batch.num_columns)
    for start in range(0, batch.num_rows, step):
        part = batch.slice(start, step)
        part.validate(full=True)  # nothing before has looked, and it may come from anybody
        yield from _halved(part, columns, start)


def _halved(part: pa.RecordBatch, columns: Columns, start: int) -> Iterator[tuple[int, pa.Table]]:
    if part.num_rows > 1 and sum(_text_bytes(part.column(name)) for name in columns.labels) > labels_max_bytes():
        middle = part.num_rows // 2
        yield from _halved(part.slice(0, middle), columns, start)
        yield from _halved(part.slice(middle), columns, start + middle)
    else:
        copies = [(_label if name in columns.labels else _copy)(part.column(name)) for name in columns.all]
        yield start, pa.table(dict(zip(columns.all, copies, strict=True)))


def _text_bytes(column: pa.Array) -> int:
    """Return how many bytes labels take together, as `_label` leaves them."""
    if pa.types.is_dictionary(column.type):
        lengths = np.minimum(_lengths(column.dictionary), 4 * REJECT_MAX_LENGTH)
        return int(lengths[column.indices.drop_null().to_numpy()].sum())
    return int(_lengths(column).sum())


def _lengths(texts: pa.Array) -> np.ndarray:
    """Return the bytes of each text; a number or a truth value is short."""
    if pa.types.is_string_view(texts.type):  # a view begins with its length, https://arrow.apache.org/docs/format/
        views = np.frombuffer(texts.buffers()[1], "<i4")[4 * texts.offset :]
        return np.asarray(views[: 4 * len(texts) : 4], dtype=np.int64)
    if pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type):
        return np.asarray(pc.fill_null(pc.binary_length(texts), 0), dtype=np.int64)
    return np.zeros(len(texts), dtype=np.int64)


def _copy(column: pa.Array) -> pa.Array:
    return pa.concat_arrays([column])


def _label(column: pa.Array) -> pa.Array:
    """Copy labels; of a dictionary only those that occur, and of long texts the beginnings, which stay too long."""
    if pa.types.is_dictionary(column.type):
        used = pc.unique(column.indices).drop_null()
        entries = _label(column.dictionary.take(used)).cast(pa.string())
        return pa.DictionaryArray.from_arrays(pc.index_in(column.indices, used), entries)
    is_long = bool((_lengths(column) > LABELS_MAX_BYTES).any())
    if is_long and pa.types.is_string_view(column.type):  # several views may share one text
        return pa.array([text.as_py() and text.as_py()[:REJECT_MAX_LENGTH] for text in column], pa.string())
    return pc.utf8_slice_codeunits(column, 0, REJECT_MAX_LENGTH) if is_long else _copy(column)


def _parse(table: pa.Table, columns: Columns, first_row: int) -> Parsed:
    """Find the rows with a fault by columns; give the others the types of a parsed table."""
    labels = [table[name].cast(pa.string()) for name in columns.labels]
    times, is_time = columns.times.from_column(table[columns.time])
    good = np.ones(table.num_rows, dtype=bool)
    rejects: list[Reject] = []
    for name, fault, detail, found in _faults(table, columns, labels, is_time):
        rows = np.flatnonzero(pc.fill_null(found, False).to_numpy() & good)
        good[rows] = False
        rejects += (Reject(first_row + row + 1, name, fault, detail, _raw(table, row)) for row in rows.tolist())
    values = [without_nan(table[name].cast(pa.float64(), safe=False), columns) for name in columns.values]
    parsed = pa.table(dict(zip(columns.all, (times, *labels, *values), strict=True)))
    cut_off_ns = columns.times.cut_off_ns(table[columns.time])
    if rejects:
        parsed = parsed.filter(pa.array(good))
        cut_off_ns = cut_off_ns[good] if cut_off_ns is not None else None
    return Parsed(parsed, sorted(rejects, key=lambda reject: reject.line), cut_off_ns)


def _faults(
    table: pa.Table, columns: Columns, labels: list[pa.ChunkedArray], is_time: pa.ChunkedArray
) -> list[tuple[str, Fault, str, pa.ChunkedArray]]:
    """Give each fault that a row may have: its column, what it is, and which rows have it; the first found counts."""
    time = columns.time
    faults = [
        (time, Fault.UNREADABLE_TIME, "the time is missing", pc.is_null(table[time])),
        (
            time,
            Fault.TIME_OUT_OF_RANGE,
            "the time is out of range, or skipped or repeated by clocks",
            pc.invert(is_time),
        ),
    ]
    for name, texts in zip(columns.labels, labels, strict=True):
        missing = pc.or_kleene(pc.is_null(texts), pc.equal(texts, ""))
        faults.append((name, Fault.MISSING_LABEL, "the label is missing", missing))
        has_nul = pc.match_substring(texts, "\0")
        faults.append((name, Fault.UNREADABLE_LABEL, "the label has a NUL in it", has_nul))
    if labels:
        sizes = reduce(pc.add, (pc.cast(pc.binary_length(texts), pa.int64()) for texts in labels))
        detail = f"its labels have more than {LABELS_MAX_BYTES} bytes together"
        faults.append((columns.labels[0], Fault.LONG_LABELS, detail, pc.greater(sizes, LABELS_MAX_BYTES)))
    return faults


def _raw(table: pa.Table, row: int) -> str:
    """Write a row as text; a time as the number that the file has, since it may be one that Python cannot hold."""
    cells = (f"{name}={_text(table[name][row])}" for name in table.column_names)
    return ", ".join(cells).replace("\0", "\\x00")


def _text(cell: pa.Scalar) -> str:
    if pa.types.is_timestamp(cell.type) and cell.is_valid:
        return f"{cell.value} {cell.type.unit}"
    return str(cell.as_py())[:REJECT_MAX_LENGTH]
