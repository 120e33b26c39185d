"""Parquet: cut between row groups, or within those that are larger than a batch, and read by Arrow."""

from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from telemetry.formats.base import PIECE_ROWS, Columns, Parsed, Slice
from telemetry.formats.source import DAMAGE, BadInput, Source
from telemetry.formats.typed import check_schema, parse_batches

# Of a row group, to take a sample.
SKIP_ROWS_MAX = 1_000_000


class ParquetFormat:
    """Parquet with a timestamp column that has a zone, and numeric values."""

    name = "parquet"
    endings: tuple[str, ...] = (".parquet", ".pq")

    def check(self, source: Source, columns: Columns) -> None:
        """Read the schema."""
        source.stamp()
        with _open(source) as file:
            if file.metadata.num_rows == 0:
                raise BadInput(source, "there is no row in the file")
            check_schema(source, file.schema_arrow, columns)

    def cut(self, source: Source, batch_rows: int, columns: Columns) -> Iterator[Slice]:
        """Gather neighbouring row groups; divide one that is larger than a batch, however large its writer made it."""
        with _open(source) as file:
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        groups: list[int] = []
        first_row = rows = 0
        for group, count in enumerate(counts):
            if groups and rows + count > batch_rows:
                yield _slice(rows, groups, first_row)
                first_row, rows, groups = first_row + rows, 0, []
            if count > batch_rows:
                for skip in range(0, count, batch_rows):
                    taken = min(batch_rows, count - skip)
                    yield _slice(taken, [group], first_row, skip)
                    first_row += taken
            else:
                groups.append(group)
                rows += count
        if groups:
            yield _slice(rows, groups, first_row)

    def read(self, source: Source, place: dict[str, Any], columns: Columns) -> Iterator[Parsed]:
        """Read row groups, or a part of one; what comes before it in its row group is decoded and dropped."""
        # As dictionaries, labels take no more room than in the file, however often one stands there.
        as_dictionaries = {"read_dictionary": list(columns.labels)}
        where = f"row groups {place['row_groups']}"
        with source.naming_damage(where), pq.ParquetFile(source.open(), **as_dictionaries) as file:
            batches = file.iter_batches(
                PIECE_ROWS, row_groups=place["row_groups"], columns=list(columns.all), use_threads=False
            )
            yield from parse_batches(batches, columns, place)

    def sample(self, source: Source, part: Slice, columns: Columns, row_limit: int) -> Iterator[Parsed]:
        """Read the first rows of a slice; of one far within a row group, rows before it, for which less is decoded."""
        skip, rows = part.place["skip"] % SKIP_ROWS_MAX, min(part.row_count, row_limit)
        yield from self.read(source, {**part.place, "skip": skip, "rows": rows}, columns)


FORMAT = ParquetFormat()


def _open(source: Source) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(source.open())
    except (*DAMAGE, OSError) as error:
        raise BadInput(source, f"this is no Parquet file: {str(error).split('.')[0]}") from None


def _slice(row_count: int, row_groups: list[int], first_row: int, skip: int = 0) -> Slice:
    return Slice(row_count, {"row_groups": row_groups, "skip": skip, "rows": row_count, "first_row": first_row})
