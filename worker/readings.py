"""A batch's readings: its slice parsed, melted and sorted, a piece at a time."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from telemetry import formats, spool
from telemetry.formats import Columns, Parsed, Reject, Stamp
from telemetry.formats.times import TIME_TYPE
from telemetry.intake import columns_of
from telemetry.models import IngestBatch
from worker.series import Kind, LabelValues, known_ids, learn

# Any bound between the square of the largest batch and the largest 64-bit integer.
CODES_MAX = 1 << 62
DENSE_CODES = 1 << 20

SCHEMA = pa.schema([("time", TIME_TYPE), ("series_id", pa.int32()), ("value", pa.float64())])


class Readings:
    """A batch's readings, parsed a piece at a time whenever they are asked for, and what was met on the way."""

    def __init__(self, batch: IngestBatch) -> None:
        self._batch, self._columns = batch, columns_of(batch.job)
        self._reset()

    def _reset(self) -> None:
        self.rows = self.count = 0
        self.series: set[int] = set()
        self.rejects: list[Reject] = []

    @property
    def cells(self) -> int:
        """The value cells of the rows that could be read."""
        return (self.rows - len(self.rejects)) * len(self._columns.values)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Give the readings, sorted within each piece.

        Raises:
            BadInput: the slice cannot be read.
            UnknownSeriesError: this process does not know the id of a series.
        """
        self._reset()
        for parsed in self._parsed():
            readings = make_readings(parsed.table, self._columns)
            self.rows += parsed.table.num_rows + len(parsed.rejects)
            self.rejects += parsed.rejects
            self.count += readings.num_rows
            self.series.update(_distinct_of_sorted(readings["series_id"].to_numpy()))
            yield readings

    def learn_series(self) -> None:
        """Find out the ids of all series; not to be called in a transaction that may be rolled back."""
        values: set[LabelValues] = set()
        for parsed in self._parsed():
            values.update(_label_values(parsed.table, self._columns.labels)[0])
        learn(_kinds(self._columns), values)

    def _parsed(self) -> Iterator[Parsed]:
        file = self._batch.file
        source = spool.source_of(file.location, file.name)
        source.require_unchanged(Stamp(file.size_bytes, file.mtime_ns))
        return formats.by_name(self._batch.job.format).read(source, self._batch.slice, self._columns)


def make_readings(table: pa.Table, columns: Columns) -> pa.RecordBatch:
    """Melt a parsed table: a reading for each value cell that is not empty, sorted by series and time.

    Sorting first spares the unique index from being touched at random, which is what a COPY into it costs. Readings of
    the same series and time keep the order of the file.

    Raises:
        UnknownSeriesError: this process does not know the id of a series.
    """
    values, which = _label_values(table, columns.labels)
    times = table[columns.time].combine_chunks().cast(pa.int64()).to_numpy(zero_copy_only=False)
    parts = []
    for kind in _kinds(columns):
        ids = np.array(known_ids(kind, values), dtype=np.int32)
        cells = table[kind.metric].combine_chunks()
        present = cells.is_valid().to_numpy(zero_copy_only=False) if cells.null_count else slice(None)
        numbers = cells.drop_null().to_numpy(zero_copy_only=False)
        parts.append((times[present], ids[which[present]], numbers))
    time, series_id, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((time, series_id))
    arrays = [pa.array(time[order]).cast(TIME_TYPE), pa.array(series_id[order]), pa.array(value[order])]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _kinds(columns: Columns) -> list[Kind]:
    return [Kind(metric, columns.labels) for metric in columns.values]


def _label_values(table: pa.Table, labels: tuple[str, ...]) -> tuple[list[LabelValues], np.ndarray]:
    """Give the distinct combinations of labels' values, and for each row which of them it has."""
    code = np.zeros(table.num_rows, dtype=np.int64)
    size = 1
    for name in labels:
        encoded = table[name].combine_chunks().dictionary_encode()
        if size * len(encoded.dictionary) > CODES_MAX:  # more than there are rows: close the gaps before they overflow
            distinct, code = np.unique(code, return_inverse=True)
            size = len(distinct)
        code = code * len(encoded.dictionary) + encoded.indices.to_numpy(zero_copy_only=False)
        size *= len(encoded.dictionary)
    first_row, which = _first_occurrences(code, size)
    if not labels:
        return [()] * len(first_row), which
    distinct = table.select(labels).take(pa.array(first_row))
    return list(zip(*(column.to_pylist() for column in distinct.columns), strict=True)), which


def _first_occurrences(code: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the first row of each distinct code below `size`, and for each row which of them it has."""
    if size > DENSE_CODES:
        _, first_row, which = np.unique(code, return_index=True, return_inverse=True)
        return first_row, which
    position = np.full(size, -1, dtype=np.int64)  # a table is quicker than sorting
    position[code[::-1]] = np.arange(len(code) - 1, -1, -1)
    distinct = np.flatnonzero(position >= 0)
    first_row = position[distinct]
    position[distinct] = np.arange(len(distinct))
    return first_row, position[code]


def _distinct_of_sorted(ids: np.ndarray) -> list[int]:
    distinct: list[int] = ids[np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1))].tolist()
    return distinct
