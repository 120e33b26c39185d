"""Parquet: cut between row groups, read by Arrow."""

from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from telemetry.formats.base import (
    LABELS_MAX_BYTES,
    BadInput,
    Columns,
    Parsed,
    Reject,
    Slice,
    require_columns,
    require_unchanged,
    stamp_of,
)


class ParquetFormat:
    """Parquet with a timestamp column that has a zone, and numeric values."""

    name = "parquet"
    endings: tuple[str, ...] = (".parquet", ".pq")

    def check(self, path: Path, columns: Columns) -> None:
        """Read the schema."""
        stamp_of(path)
        with _open(path) as file:
            schema = file.schema_arrow
            require_columns(path, schema.names, columns.all)
            if file.metadata.num_rows == 0:
                raise BadInput(path, "there is no row in the file")
        _require_time(path, columns, schema.field(columns.time).type)
        for name in columns.labels:
            if not _is_text(kind := schema.field(name).type):
                raise BadInput(path, f"column {name!r} is {kind}; allowed: strings, integers and booleans")
        for name in columns.values:
            if not _is_number(kind := schema.field(name).type):
                raise BadInput(path, f"column {name!r} is {kind}; allowed: integers, floats and decimals")

    def cut(self, path: Path, batch_rows: int, columns: Columns) -> Iterator[Slice]:
        """Gather neighbouring row groups; one that is larger than a batch stays whole, since it is read whole."""
        stamp = stamp_of(path)
        with _open(path) as file:
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        groups: list[int] = []
        first_row = rows = 0
        for group, count in enumerate(counts):
            if groups and rows + count > batch_rows:
                yield _slice(rows, groups, first_row, stamp)
                first_row, rows, groups = first_row + rows, 0, []
            groups.append(group)
            rows += count
        if groups:
            yield _slice(rows, groups, first_row, stamp)

    def read(self, path: Path, place: dict[str, Any], columns: Columns) -> Parsed:
        """Read row groups."""
        require_unchanged(path, place["stamp"])
        try:
            with _open(path) as file:
                table = file.read_row_groups(place["row_groups"], columns=list(columns.all), use_threads=False)
            return _set_aside_rows_with_faults(table.select(columns.all), columns, place["first_row"])
        except (pa.ArrowException, OSError) as error:
            raise BadInput(path, f"row groups {place['row_groups']}: {error}") from None


FORMAT = ParquetFormat()


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(path, f"this is no Parquet file: {str(error).split('.')[0]}") from None


def _slice(row_count: int, row_groups: list[int], first_row: int, stamp: dict[str, int]) -> Slice:
    return Slice(row_count, {"row_groups": row_groups, "first_row": first_row, "stamp": stamp})


def _require_time(path: Path, columns: Columns, kind: pa.DataType) -> None:
    wanted = columns.times
    if wanted.unit != "iso":
        if not pa.types.is_integer(kind):
            raise BadInput(path, f"column {columns.time!r} is {kind}; allowed with --time-unit: integers")
    elif not pa.types.is_timestamp(kind):
        raise BadInput(path, f"column {columns.time!r} is {kind}; allowed: a timestamp, or with --time-unit an integer")
    elif kind.tz is None and not wanted.timezone:
        raise BadInput(path, f"column {columns.time!r} has no time zone; allowed: one that has, or --timezone")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_string = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(is_string or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _set_aside_rows_with_faults(table: pa.Table, columns: Columns, first_row: int) -> Parsed:
    """Find the rows with a fault by columns; give the others the types of a parsed table."""
    labels = [table[name].cast(pa.string()) for name in columns.labels]
    times, is_time = columns.times.from_column(table[columns.time])
    faults = [(columns.time, "the time is missing", pc.is_null(table[columns.time]))]
    faults.append((columns.time, "the time is out of range, or skipped or repeated by clocks", pc.invert(is_time)))
    for name, texts in zip(columns.labels, labels, strict=True):
        faults.append((name, "the label is missing", pc.or_kleene(pc.is_null(texts), pc.equal(texts, ""))))
        faults.append((name, "the label has a NUL in it", pc.match_substring(texts, "\0")))
    if labels:
        sizes = reduce(pc.add, (pc.cast(pc.binary_length(texts), pa.int64()) for texts in labels))
        too_long = pc.greater(sizes, LABELS_MAX_BYTES)
        faults.append((columns.labels[0], f"its labels have more than {LABELS_MAX_BYTES} bytes together", too_long))
    good = np.ones(table.num_rows, dtype=bool)
    rejects: list[Reject] = []
    for name, reason, found in faults:
        rows = np.flatnonzero(pc.fill_null(found, False).to_numpy() & good)
        good[rows] = False
        for row in rows.tolist():
            rejects.append(Reject(first_row + row + 1, name, reason, _raw(table, row)))
    values = [table[name].cast(pa.float64(), safe=False) for name in columns.values]
    parsed = pa.table(dict(zip(columns.all, (times, *labels, *values), strict=True)))
    if rejects:
        parsed = parsed.filter(pa.array(good))
    return Parsed(parsed, sorted(rejects, key=lambda reject: reject.line))


def _raw(table: pa.Table, row: int) -> str:
    """Write a row as text; a time as the number that the file has, since it may be one that Python cannot hold."""
    cells = (f"{name}={_text(table[name][row])}" for name in table.column_names)
    return ", ".join(cells).replace("\0", "\\x00")


def _text(cell: pa.Scalar) -> str:
    if pa.types.is_timestamp(cell.type) and cell.is_valid:
        return f"{cell.value} {cell.type.unit}"
    return str(cell.as_py())
