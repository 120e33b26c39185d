"""Tables with typed columns, as in Parquet and Arrow files: checks of the types, and parsing of the rows."""

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
    """Check that the columns have types that can be loaded.

    Raises:
        BadInput: a column is missing, or has another type.
    """
    require_default_text(source, columns)
    require_columns(source, schema.names, columns.all)
    _require_time(source, columns, schema.field(columns.time).type)
    for name in columns.labels:
        if not _is_text(kind := schema.field(name).type):
            raise BadInput(source, f"expected strings, integers or booleans in column {name!r}, got {kind}")
    for name in columns.values:
        if not _is_number(kind := schema.field(name).type):
            raise BadInput(source, f"expected integers, floats or decimals in column {name!r}, got {kind}")


def _require_time(source: Source, columns: Columns, kind: pa.DataType) -> None:
    wanted = columns.times
    if wanted.unit != "iso":
        if not pa.types.is_integer(kind):
            raise BadInput(
                source, f"expected integers in column {columns.time!r} because of the option time-unit, got {kind}"
            )
    elif not pa.types.is_timestamp(kind):
        raise BadInput(
            source,
            f"expected timestamps in column {columns.time!r}, or integers with the option time-unit, got {kind}",
        )
    elif kind.tz is None and not wanted.timezone:
        raise BadInput(
            source,
            f"expected timestamps with a time zone in column {columns.time!r}, or the option timezone, got {kind}",
        )


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
        batches: record batches with the columns of `Columns.all` in any order, of types that `check_schema` accepts.
        columns: how the columns are read.
        first_row: the number of rows of the file before them.

    Raises:
        pyarrow.ArrowInvalid: the data violates its format, for example if a string is not valid UTF-8.
    """
    for batch in batches:
        next_row = first_row + batch.num_rows
        for start, piece in _pieces(batch.select(columns.all), columns):
            yield _parse(piece, columns, first_row + start)
        first_row = next_row
        del batch  # before the next one is read


def _pieces(batch: pa.RecordBatch, columns: Columns) -> Iterator[tuple[int, pa.Table]]:
    """Divide the rows of a batch into pieces, limited by their cells and the size of their labels.

    A piece has copies of the data, because it may be used while the next batch is read, and would keep the whole batch
    in memory otherwise.
    """
    step = piece_rows(batch.num_columns)
    for start in range(0, batch.num_rows, step):
        part = batch.slice(start, step)
        part.validate(full=True)  # the file is untrusted, and was not validated before
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
    """Return the size of the labels after `_label`, in bytes."""
    if pa.types.is_dictionary(column.type):
        lengths = np.minimum(_lengths(column.dictionary), 4 * REJECT_MAX_LENGTH)
        return int(lengths[column.indices.drop_null().to_numpy()].sum())
    return int(_lengths(column).sum())


def _lengths(texts: pa.Array) -> np.ndarray:
    """Return the length of each text in bytes; 0 for numbers and booleans, which are short."""
    if pa.types.is_string_view(texts.type):  # a view begins with its length, https://arrow.apache.org/docs/format/
        views = np.frombuffer(texts.buffers()[1], "<i4")[4 * texts.offset :]
        return np.asarray(views[: 4 * len(texts) : 4], dtype=np.int64)
    if pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type):
        return np.asarray(pc.fill_null(pc.binary_length(texts), 0), dtype=np.int64)
    return np.zeros(len(texts), dtype=np.int64)


def _copy(column: pa.Array) -> pa.Array:
    return pa.concat_arrays([column])


def _label(column: pa.Array) -> pa.Array:
    """Copy labels, dictionaries without unused entries, and long texts cut to a length that is still rejected."""
    if pa.types.is_dictionary(column.type):
        used = pc.unique(column.indices).drop_null()
        entries = _label(column.dictionary.take(used)).cast(pa.string())
        return pa.DictionaryArray.from_arrays(pc.index_in(column.indices, used), entries)
    is_long = bool((_lengths(column) > LABELS_MAX_BYTES).any())
    if is_long and pa.types.is_string_view(column.type):  # several views may share one text
        return pa.array([text.as_py() and text.as_py()[:REJECT_MAX_LENGTH] for text in column], pa.string())
    return pc.utf8_slice_codeunits(column, 0, REJECT_MAX_LENGTH) if is_long else _copy(column)


def _parse(table: pa.Table, columns: Columns, first_row: int) -> Parsed:
    """Reject rows with faults, and convert the others to the types of a parsed table."""
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
    """Return each possible fault with its column, detail and a mask of its rows; only the first of a row counts."""
    time = columns.time
    faults = [
        (time, Fault.UNREADABLE_TIME, "the time is missing", pc.is_null(table[time])),
        (
            time,
            Fault.TIME_OUT_OF_RANGE,
            "the time is not in the years 1 to 9999, or is skipped or repeated by a clock change",
            pc.invert(is_time),
        ),
    ]
    for name, texts in zip(columns.labels, labels, strict=True):
        missing = pc.or_kleene(pc.is_null(texts), pc.equal(texts, ""))
        faults.append((name, Fault.MISSING_LABEL, "the label is missing", missing))
        has_nul = pc.match_substring(texts, "\0")
        faults.append((name, Fault.UNREADABLE_LABEL, "NUL characters are not allowed in labels", has_nul))
    if labels:
        sizes = reduce(pc.add, (pc.cast(pc.binary_length(texts), pa.int64()) for texts in labels))
        detail = f"the labels have more than {LABELS_MAX_BYTES:,} bytes in total"
        faults.append((columns.labels[0], Fault.LONG_LABELS, detail, pc.greater(sizes, LABELS_MAX_BYTES)))
    return faults


def _raw(table: pa.Table, row: int) -> str:
    """Return a row as text; a time as its number in the file, since Python may not be able to represent it."""
    cells = (f"{name}={_text(table[name][row])}" for name in table.column_names)
    return ", ".join(cells).replace("\0", "\\x00")


def _text(cell: pa.Scalar) -> str:
    if pa.types.is_timestamp(cell.type) and cell.is_valid:
        return f"{cell.value} {cell.type.unit}"
    return str(cell.as_py())[:REJECT_MAX_LENGTH]
