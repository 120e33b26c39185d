"""Parquet: cut between row groups, read by Arrow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

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


class ParquetFormat:
    """Parquet with a timestamp column that has a zone, and numeric values."""

    name = "parquet"
    endings: tuple[str, ...] = (".parquet", ".pq")

    def check(self, path: Path, columns: Columns) -> None:
        """Read the schema."""
        require_file(path)
        with _open(path) as file:
            schema = file.schema_arrow
            require_columns(path, schema.names, columns.all)
            if file.metadata.num_rows == 0:
                raise BadInput(path, "there is no row in the file")
        time = schema.field(columns.time).type
        if not (pa.types.is_timestamp(time) and time.tz):
            raise BadInput(path, f"column {columns.time!r} is {time}; allowed: a timestamp with a time zone")
        for name in columns.values:
            kind = schema.field(name).type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
                raise BadInput(path, f"column {name!r} is {kind}; allowed: integers, floats and decimals")

    def cut(self, path: Path, batch_rows: int) -> Iterator[Slice]:
        """Gather neighbouring row groups; one that is larger than a batch stays whole, since it is read whole."""
        size = require_file(path)
        with _open(path) as file:
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        groups: list[int] = []
        first_row = rows = 0
        for group, count in enumerate(counts):
            if groups and rows + count > batch_rows:
                yield _slice(rows, groups, first_row, size)
                first_row, rows, groups = first_row + rows, 0, []
            groups.append(group)
            rows += count
        if groups:
            yield _slice(rows, groups, first_row, size)

    def read(self, path: Path, place: dict[str, Any], columns: Columns) -> Parsed:
        """Read row groups."""
        if (size := require_file(path)) != place["file_size"]:
            raise BadInput(path, f"the file has changed: {place['file_size']} bytes when it was enqueued, {size} now")
        with _open(path) as file:
            table = file.read_row_groups(place["row_groups"], columns=list(columns.all), use_threads=False)
        types = [TIME_TYPE, *[pa.string()] * len(columns.labels), *[pa.float64()] * len(columns.values)]
        try:
            table = table.select(columns.all).cast(pa.schema(zip(columns.all, types, strict=True)), safe=False)
        except pa.ArrowInvalid as error:
            raise BadInput(path, f"row groups {place['row_groups']}: {error}") from None
        return _set_aside_incomplete_rows(table, columns, place["first_row"])


FORMAT = ParquetFormat()


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise BadInput(path, f"this is no Parquet file: {str(error).split('.')[0]}") from None


def _slice(row_count: int, row_groups: list[int], first_row: int, file_size: int) -> Slice:
    return Slice(row_count, {"row_groups": row_groups, "first_row": first_row, "file_size": file_size})


def _set_aside_incomplete_rows(table: pa.Table, columns: Columns, first_row: int) -> Parsed:
    rejects: list[Reject] = []
    whole = pa.chunked_array([pa.repeat(pa.scalar(True), table.num_rows)])
    for name in (columns.time, *columns.labels):
        present = pc.is_valid(table[name])
        if name != columns.time:
            present = pc.and_(present, pc.fill_null(pc.not_equal(table[name], ""), False))
        reason = "the time is missing" if name == columns.time else "the label is missing"
        for row in pc.indices_nonzero(pc.and_(whole, pc.invert(present))).to_pylist():
            raw = str(table.slice(row, 1).to_pylist()[0])
            rejects.append(Reject(first_row + row + 1, name, reason, raw))
        whole = pc.and_(whole, present)
    return Parsed(table.filter(whole) if rejects else table, rejects)
