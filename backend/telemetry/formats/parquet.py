"""Parquet: cut between row groups, or within those that are larger than a batch, and parsed by Arrow."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from telemetry.formats.base import Columns, Parsed, Slice
from telemetry.formats.memory import SAMPLE_MAX_BYTES, page_max_bytes, piece_rows
from telemetry.formats.pages import DELTA, Footer, Page, pages, rows_within
from telemetry.formats.source import BadInput, Source
from telemetry.formats.typed import check_schema, parse_batches

# Read-ahead per column: large for object stores, where each read is a request, but smaller if there are many columns.
BUFFER_MIN_BYTES, BUFFER_MAX_BYTES = 64 << 10, 4 << 20
PAGES_MAX = 100_000  # pages of a column in a slice
CELL_BYTES = 9  # a number, and whether it is null
# Rows of a row group that are decoded and dropped to take a sample.
SKIP_ROWS_MAX = 1_000_000


class ParquetFormat:
    """Parquet with a timestamp column that has a zone, and numeric values."""

    name = "parquet"
    endings: tuple[str, ...] = (".parquet", ".pq")

    def check(self, source: Source, columns: Columns) -> None:
        """Check the types of the schema's columns."""
        source.stamp()
        with _open(source) as opened:
            if opened.metadata.num_rows == 0:
                raise BadInput(source, "the file has no rows")
            check_schema(source, opened.schema, columns)

    def cut(self, source: Source, batch_rows: int, columns: Columns) -> Iterator[Slice]:
        """Yield slices of consecutive row groups, or of a part of one that has more than `batch_rows` rows."""
        with _open(source) as opened:
            metadata = opened.metadata
            counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        if min(counts, default=0) < 0:
            raise BadInput(source, "not a valid Parquet file: a row group has a negative number of rows")
        if not any(counts):  # the number for the whole file may be wrong
            raise BadInput(source, "the file has no rows")
        batch_rows = max(1, min(batch_rows, page_max_bytes() // CELL_BYTES // max(1, len(columns.values))))
        first_group = first_row = rows = 0
        for group, count in enumerate(counts):
            if rows and rows + count > batch_rows:
                yield _slice(rows, (first_group, group), first_row)
                first_group, first_row, rows = group, first_row + rows, 0
            if count > batch_rows:
                for skip in range(0, count, batch_rows):
                    taken = min(batch_rows, count - skip)
                    yield _slice(taken, (group, group + 1), first_row, skip)
                    first_row += taken
                first_group = group + 1
            else:
                rows += count
        if rows:
            yield _slice(rows, (first_group, len(counts)), first_row)

    def read(self, source: Source, place: dict[str, Any], columns: Columns) -> Iterator[Parsed]:
        """Yield row groups, or a part of one; the rows before that part are decoded and dropped."""
        # Older versions recorded a list of row groups.
        row_groups = place["row_groups"] if "row_groups" in place else list(range(*place["groups"]))
        where = f"cannot read row groups {row_groups[0]} to {row_groups[-1]}"
        with _open(source) as opened, source.open() as file, source.naming_damage(where):
            check_schema(source, opened.schema, columns)
            plan = _plan(file, opened, row_groups, columns)
            rows = _Rows(plan.open(file, opened.metadata), row_groups, place["skip"], place["rows"])
            # Columns that cannot be decoded together with the others are decoded before them.
            aside = [pa.Table.from_batches(rows.of(names, plan.rows)) for names in plan.aside]
            yield from parse_batches(_joined(rows.of(plan.first, plan.rows), aside), columns, place["first_row"])

    def sample(self, source: Source, part: Slice, columns: Columns, row_limit: int) -> Iterator[Parsed]:
        """Yield the first rows of a slice, unless a page of its times takes more than SAMPLE_MAX_BYTES of memory.

        For a slice that begins far within a row group, yield rows before it, so that fewer rows have to be decoded.
        """
        with _open(source) as opened, source.open() as file, source.naming_damage("cannot read a sample"):
            row_groups = range(*part.place["groups"])
            of_column = _pages(file, opened, list(row_groups), columns.time)
            if _decoding_bytes(of_column) > SAMPLE_MAX_BYTES:
                return
        skip, rows = part.place["skip"] % SKIP_ROWS_MAX, min(part.row_count, row_limit)
        yield from self.read(source, {**part.place, "skip": skip, "rows": rows}, columns)


FORMAT = ParquetFormat()


@dataclass(frozen=True)
class _Opened:
    """An open file with its footer."""

    schema: pa.Schema
    metadata: pq.FileMetaData
    footer: Footer

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {self.metadata.schema.column(number).path: number for number in range(self.metadata.num_columns)}

    def column_number(self, name: str) -> int:
        """Return the index of a column.

        Raises:
            pyarrow.ArrowInvalid: Parquet's schema does not have the column, although Arrow's schema in the file has it.
        """
        if name not in self._numbers:
            raise pa.ArrowInvalid(f"Parquet's schema has no column {name!r}, but Arrow's schema in the file has one")
        return self._numbers[name]


@contextmanager
def _open(source: Source) -> Iterator[_Opened]:
    with source.open() as file:
        with source.naming_damage("not a valid Parquet file"):
            footer = Footer(file)
            opened = pq.ParquetFile(file)
        with opened:
            yield _Opened(opened.schema_arrow, opened.metadata, footer)


def _slice(row_count: int, groups: tuple[int, int], first_row: int, skip: int = 0) -> Slice:
    return Slice(row_count, {"groups": groups, "skip": skip, "rows": row_count, "first_row": first_row})


@dataclass
class _Plan:
    """How columns are decoded: the rows per step, and the groups of columns that are decoded one after the other."""

    rows: int
    groups: list[list[str]] = field(default_factory=lambda: [[]])
    dictionaries: list[str] = field(default_factory=list)

    @property
    def first(self) -> list[str]:
        return self.groups[0]

    @property
    def aside(self) -> list[list[str]]:
        return self.groups[1:]

    def open(self, file: pa.NativeFile, metadata: pq.FileMetaData) -> pq.ParquetFile:
        buffer_bytes = page_max_bytes() // 2 // max(map(len, self.groups))
        return pq.ParquetFile(
            file,
            metadata=metadata,
            read_dictionary=self.dictionaries,
            buffer_size=min(BUFFER_MAX_BYTES, max(BUFFER_MIN_BYTES, buffer_bytes)),
            pre_buffer=False,
        )


def _plan(file: pa.NativeFile, opened: _Opened, row_groups: list[int], columns: Columns) -> _Plan:
    """Plan the decoding from the page headers.

    Raises:
        pyarrow.ArrowInvalid: a page takes too much memory, or its header is damaged.
    """
    plan = _Plan(piece_rows(len(columns.all)))
    group_bytes = 0
    for name in columns.all:
        of_column = _pages(file, opened, row_groups, name)
        if opened.metadata.schema.column(opened.column_number(name)).physical_type == "BYTE_ARRAY":
            plan.rows = rows_within(of_column, plan.rows, page_max_bytes())
        # As a dictionary, labels take no more memory than in the file, however often one occurs.
        if name in columns.labels and all(page.encoding not in DELTA for page in of_column):
            plan.dictionaries.append(name)
        column_bytes = _decoding_bytes(of_column)
        group_bytes += column_bytes
        if group_bytes > page_max_bytes() and name in columns.values:
            plan.groups.append([])
            group_bytes = column_bytes
        plan.groups[-1].append(name)
    return plan


def _pages(file: pa.NativeFile, opened: _Opened, row_groups: list[int], name: str) -> list[Page]:
    chunks = (opened.footer.chunk(row_group, opened.column_number(name)) for row_group in row_groups)
    every = (page for chunk in chunks for page in pages(file, chunk, name))
    of_column = list(islice(every, PAGES_MAX + 1))
    if len(of_column) > PAGES_MAX:
        raise pa.ArrowInvalid(
            f"column {name!r} has more than {PAGES_MAX:,} pages in these row groups; write it with larger pages"
        )
    return of_column


def _decoding_bytes(of_column: list[Page]) -> int:
    """Return the memory that decoding a column takes, in bytes: for a page and its dictionary."""
    data, dictionaries = (
        max((page.memory_bytes for page in of_column if page.is_data is is_data), default=0)
        for is_data in (True, False)
    )
    return data + dictionaries


@dataclass(frozen=True)
class _Rows:
    """A range of the rows of some row groups."""

    file: pq.ParquetFile
    row_groups: list[int]
    skip: int
    rows: int

    def of(self, names: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield columns of the rows in record batches of `batch_rows` rows."""
        at, end = 0, self.skip + self.rows
        for batch in self.file.iter_batches(batch_rows, row_groups=self.row_groups, columns=names, use_threads=False):
            first, last = max(self.skip - at, 0), min(end - at, batch.num_rows)
            at += batch.num_rows
            wanted = batch.slice(first, max(last - first, 0))
            del batch  # before the next one is decoded
            if wanted.num_rows:
                yield wanted
            del wanted
            if at >= end:
                return


def _joined(batches: Iterator[pa.RecordBatch], aside: list[pa.Table]) -> Iterator[pa.RecordBatch]:
    at = 0
    for batch in batches:
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        for table in aside:
            for name, column in zip(table.column_names, table.slice(at, batch.num_rows).columns, strict=True):
                columns[name] = column.combine_chunks()
        at += batch.num_rows
        del batch  # before the next one is decoded
        yield pa.record_batch(columns)
        del columns
