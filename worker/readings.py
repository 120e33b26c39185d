"""The readings of a batch: its slice is parsed, melted and sorted piece by piece."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from telemetry import formats, rejects, spool
from telemetry.chunks import Edges, chunk_begins, chunk_numbers
from telemetry.formats import Columns, Parsed, Stamp
from telemetry.formats.times import TIME_TYPE
from telemetry.intake import columns_of
from telemetry.models import IngestBatch
from worker.series import Kind, LabelValues, known_ids, learn
from worker.survey import Portion

# Any limit between the square of the largest batch and the largest 64-bit integer.
CODES_MAX = 1 << 62
DENSE_CODES = 1 << 20

SCHEMA = pa.schema([("time", TIME_TYPE), ("series_id", pa.int32()), ("value", pa.float64())])


@dataclass(frozen=True)
class Ends:
    """The last time of each series of a piece, in the order of the series, and the nanoseconds cut off from it."""

    series_id: np.ndarray
    time_us: np.ndarray
    cut_off_ns: np.ndarray

    @classmethod
    def of_sorted(cls, series_id: np.ndarray, time_us: np.ndarray, cut_off_ns: np.ndarray) -> "Ends":
        """Return the ends of readings that are sorted by series and time."""
        last = np.flatnonzero(np.diff(series_id, append=series_id[-1:] + 1))
        return cls(series_id[last], time_us[last], cut_off_ns[last])

    def of_series(self, series_id: np.ndarray) -> "Ends":
        """Return the ends of the given series."""
        chosen = np.isin(self.series_id, series_id)
        return Ends(self.series_id[chosen], self.time_us[chosen], self.cut_off_ns[chosen])


NO_ENDS = Ends(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int16))


@dataclass(frozen=True)
class Melted:
    """The readings of a parsed piece."""

    readings: pa.RecordBatch
    rounded: int
    """readings that were dropped, because they have the same time as one before after rounding to microseconds"""
    ends: Ends


class Melt:
    """Converts the pieces of a batch, in their order, to readings.

    Which readings are dropped as rounded does not depend on the borders of the pieces, if each series is in order.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._ends = NO_ENDS

    def __call__(self, parsed: Parsed) -> Melted:
        """Return the readings of the next piece."""
        melted = make_readings(parsed, self._columns, self._ends)
        self._ends = melted.ends
        return melted


class TooManyChunksError(Exception):
    """The readings of a batch touch more chunks than one transaction may."""


class Stream:
    """Readings that are made piece by piece on each iteration, with their number and their series."""

    def __init__(self, pieces: Callable[[], Generator[pa.RecordBatch]]) -> None:
        self._pieces = pieces
        self.count = 0
        self.series: set[int] = set()

    def __iter__(self) -> Generator[pa.RecordBatch]:
        """Yield the pieces, and reset and update `count` and `series`."""
        self.count = 0
        self.series.clear()
        with closing(self._pieces()) as pieces:
            for piece in pieces:
                self.count += piece.num_rows
                self.series.update(_distinct_of_sorted(piece["series_id"].to_numpy()))
                yield piece


class Readings(Stream):
    """A batch's readings, parsed a piece at a time.

    Args:
        batch: the batch.
        chunk_limit: the number of chunks that it may touch; None for any number.
        chunk_width_us: the width of a chunk.
    """

    def __init__(self, batch: IngestBatch, chunk_limit: int | None = None, chunk_width_us: int = 0) -> None:
        super().__init__(self._whole)
        self._batch, self._columns = batch, columns_of(batch.job)
        self._chunk_limit, self._chunk_width_us = chunk_limit, chunk_width_us
        self._reset()

    def _reset(self) -> None:
        self.rows = self.rounded = self.chunk_count = 0
        self.rejected = rejects.Tally()

    @property
    def cells(self) -> int:
        """The number of value cells of the rows that were not rejected."""
        return (self.rows - self.rejected.rows) * len(self._columns.values)

    @property
    def width(self) -> int:
        """The maximum number of readings per row."""
        return len(self._columns.values)

    def _whole(self) -> Generator[pa.RecordBatch]:
        """Yield all readings, sorted within each piece, and write the rejected rows.

        Raises:
            BadInput: the slice cannot be read.
            OSError: the rejected rows cannot be written.
            UnknownSeriesError: the id of a series is not cached.
            TooManyChunksError: the readings touch more than `chunk_limit` chunks.
        """
        self._reset()
        chunks: set[int] = set()
        melt = Melt(self._columns)
        with rejects.Writer(self._batch) as writer:
            for parsed in self._parsed():
                self._note(parsed, writer)
                if self._chunk_limit is not None:
                    chunks.update(chunk_numbers(self._times_us(parsed), self._chunk_width_us).tolist())
                    self.chunk_count = len(chunks)
                    if self.chunk_count > self._chunk_limit:
                        raise TooManyChunksError
                melted = melt(parsed)
                self.rounded += melted.rounded
                yield melted.readings

    def between(self, portion: Portion) -> Generator[pa.RecordBatch]:
        """Yield the readings in a portion's time range, sorted within each piece."""
        melt = Melt(self._columns)
        for parsed in self._parsed():
            yield melt(parsed.where(portion.holds(self._times_us(parsed)))).readings

    def survey(self, since_us: int, edges: Edges, interval_us: int) -> dict[int, int]:
        """Parse everything, and return the number of rows since a time by the begin of their chunk.

        The rejected rows are written and counted, and the ids of the series are cached, as by `learn_series`.
        """
        self._reset()
        values: set[LabelValues] = set()
        rows_by_chunk: Counter[int] = Counter()
        melt = Melt(self._columns)
        with rejects.Writer(self._batch) as writer:
            for parsed in self._parsed():
                self._note(parsed, writer)
                found = set(_label_values(parsed.table, self._columns.labels)[0])
                values |= found
                learn(_kinds(self._columns), found)
                self.rounded += melt(parsed).rounded
                times_us = self._times_us(parsed)
                begins = chunk_begins(times_us[times_us >= since_us], edges, interval_us)
                begins, counts = np.unique(begins, return_counts=True)
                rows_by_chunk.update(dict(zip(begins.tolist(), counts.tolist(), strict=True)))
        learn(_kinds(self._columns), values)  # all at once, since a full cache is emptied
        self.chunk_count = len(rows_by_chunk)
        return rows_by_chunk

    def _note(self, parsed: Parsed, writer: rejects.Writer) -> None:
        writer.write(parsed.rejects)
        self.rejected.add(parsed.rejects)
        self.rows += parsed.table.num_rows + len(parsed.rejects)

    def _times_us(self, parsed: Parsed) -> np.ndarray:
        return _times_us(parsed.table[self._columns.time])

    def learn_series(self) -> None:
        """Cache the ids of all series. Do not call it in a transaction that may be rolled back."""
        values: set[LabelValues] = set()
        for parsed in self._parsed():
            values.update(_label_values(parsed.table, self._columns.labels)[0])
        learn(_kinds(self._columns), values)

    def _parsed(self) -> Iterator[Parsed]:
        file = self._batch.file
        source = spool.source_of(file.location, file.name)
        source.require_unchanged(Stamp(file.size_bytes, file.mtime_ns))
        return formats.by_name(self._batch.job.format).read(source, self._batch.slice, self._columns)


def make_readings(parsed: Parsed, columns: Columns, before: Ends = NO_ENDS) -> Melted:
    """Melt a parsed piece: return a reading for each value cell that is not empty, sorted by series and time.

    Sorting avoids random access to the unique index, which is the main cost of a COPY. Readings of the same series and
    time keep the order of the file.

    Args:
        parsed: the piece.
        columns: the columns that make readings.
        before: the ends of the piece before it in the file.

    Raises:
        UnknownSeriesError: the id of a series is not cached.
    """
    table, cut_off_ns = parsed.table, parsed.cut_off_ns
    values, which = _label_values(table, columns.labels)
    times = _times_us(table[columns.time])
    parts, cut_off_parts = [], []
    for kind in _kinds(columns):
        ids = np.array(known_ids(kind, values), dtype=np.int32)
        cells = table[kind.metric].combine_chunks()
        present = cells.is_valid().to_numpy(zero_copy_only=False) if cells.null_count else slice(None)
        numbers = cells.drop_null().to_numpy(zero_copy_only=False)
        parts.append((times[present], ids[which[present]], numbers))
        if cut_off_ns is not None:
            cut_off_parts.append(cut_off_ns[present])
    time, series_id, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    if cut_off_ns is None and not before.cut_off_ns.any():
        order = np.lexsort((time, series_id))
        ends = Ends.of_sorted(series_id[order], time[order], np.zeros(len(order), np.int16))
    else:
        cut_off = np.concatenate(cut_off_parts) if cut_off_ns is not None else np.zeros(len(time), np.int16)
        order, ends = _without_rounded(time, series_id, cut_off, before.of_series(series_id))
    return Melted(_ordered(order, time, series_id, value), len(time) - len(order), ends)


def merge_sorted(pieces: Iterable[pa.RecordBatch]) -> pa.RecordBatch:
    """Return one sorted piece made of several; readings of the same series and time keep their order."""
    whole = pa.Table.from_batches(pieces, SCHEMA)
    time, series_id = _times_us(whole["time"]), whole["series_id"].to_numpy()
    return _ordered(np.lexsort((time, series_id)), time, series_id, whole["value"].to_numpy())


def _ordered(order: np.ndarray, time: np.ndarray, series_id: np.ndarray, value: np.ndarray) -> pa.RecordBatch:
    arrays = [pa.array(time[order]).cast(TIME_TYPE), pa.array(series_id[order]), pa.array(value[order])]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _without_rounded(
    time: np.ndarray, series_id: np.ndarray, cut_off_ns: np.ndarray, before: Ends
) -> tuple[np.ndarray, Ends]:
    """Return the order of readings, without those that have the time of one before them only because of rounding."""
    time = np.concatenate((before.time_us, time))
    series_id = np.concatenate((before.series_id, series_id))
    cut_off_ns = np.concatenate((before.cut_off_ns, cut_off_ns))
    order = np.lexsort((time, series_id))
    time, series_id, cut_off_ns = time[order], series_id[order], cut_off_ns[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (np.diff(time) != 0) | (np.diff(series_id) != 0)
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    is_kept = cut_off_ns == cut_off_ns[first]
    ends = Ends.of_sorted(series_id[is_kept], time[is_kept], cut_off_ns[is_kept])
    kept = order[is_kept] - len(before.time_us)
    return kept[kept >= 0], ends


def within(readings: pa.RecordBatch, portion: Portion) -> pa.RecordBatch:
    """Return the readings in a portion's time range; they stay sorted."""
    return readings.filter(pa.array(portion.holds(_times_us(readings["time"]))))


def _times_us(times: pa.ChunkedArray | pa.Array) -> np.ndarray:
    converted: np.ndarray = times.cast(pa.int64()).to_numpy()
    return converted


def _kinds(columns: Columns) -> list[Kind]:
    return [Kind(metric, columns.labels) for metric in columns.values]


def _label_values(table: pa.Table, labels: tuple[str, ...]) -> tuple[list[LabelValues], np.ndarray]:
    """Return the distinct combinations of label values, and for each row the index of its combination."""
    code = np.zeros(table.num_rows, dtype=np.int64)
    size = 1
    for name in labels:
        encoded = table[name].combine_chunks().dictionary_encode()
        if size * len(encoded.dictionary) > CODES_MAX:  # renumber the codes before they overflow
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
    """Return the first row of each distinct code below `size`, and for each row the index of its code."""
    if size > DENSE_CODES:
        _, first_row, which = np.unique(code, return_index=True, return_inverse=True)
        return first_row, which
    position = np.full(size, -1, dtype=np.int64)  # a table is faster than sorting
    position[code[::-1]] = np.arange(len(code) - 1, -1, -1)
    distinct = np.flatnonzero(position >= 0)
    first_row = position[distinct]
    position[distinct] = np.arange(len(distinct))
    return first_row, position[code]


def _distinct_of_sorted(ids: np.ndarray) -> list[int]:
    distinct: list[int] = ids[np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1))].tolist()
    return distinct
