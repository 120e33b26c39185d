"""One batch: read its slice, make readings of it, COPY them, and say so in the ledger, in one transaction."""

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pgpq
import psycopg2.errors
import pyarrow as pa
from django.db import DatabaseError, DataError, IntegrityError, OperationalError, connection, transaction

from telemetry import formats, rejects, spool
from telemetry.formats import Columns, Parsed, Reject, Stamp
from telemetry.formats.times import TIME_TYPE
from telemetry.intake import columns_of
from telemetry.models import IngestBatch, IngestJob
from telemetry.retention import discard_inputs_when_done
from worker import ledger
from worker.series import Kind, LabelValues, UnknownSeriesError, forget_series, known_ids, learn

logger = logging.getLogger(__name__)

# Any bound between the square of the largest batch and the largest 64-bit integer.
CODES_MAX = 1 << 62
DENSE_CODES = 1 << 20
# Enough to spare calls, little enough to stay in the processor's cache: 34 bytes a row.
ENCODED_ROWS = 16_384

READINGS = pa.schema([("time", TIME_TYPE), ("series_id", pa.int32()), ("value", pa.float64())])

MERGE = {
    # In the order of the file, the first of several readings of a series and a time stays.
    IngestJob.OnConflict.IGNORE: """
        WITH merged AS (
            INSERT INTO reading SELECT * FROM reading_batch ORDER BY series_id, time, ctid
            ON CONFLICT DO NOTHING
            RETURNING 1
        )
        SELECT count(*), 0 FROM merged
    """,
    # The last of several stays. A row that an INSERT made has no xmax; one that it updated has.
    IngestJob.OnConflict.UPDATE: """
        WITH merged AS (
            INSERT INTO reading
            SELECT DISTINCT ON (series_id, time) * FROM reading_batch ORDER BY series_id, time, ctid DESC
            ON CONFLICT (series_id, time) DO UPDATE SET value = excluded.value
            RETURNING xmax = 0 AS is_new
        )
        SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) FROM merged
    """,
}


class DuplicateReadingError(Exception):
    """A job that wants every reading to be new has one that is not."""


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


@dataclass(frozen=True)
class Copied:
    """What became of readings."""

    inserted: int
    updated: int = 0


def load(batch_id: int) -> None:
    """Load a batch that is queued; one that is not, or that another worker is loading, is left alone.

    Raises:
        BadInput: the slice cannot be read.
        DuplicateReadingError: the job refuses duplicates, and there is one.
        django.db.OperationalError: among others, when the server is away; the batch is as it was.
    """
    batch = IngestBatch.objects.select_related("job", "file").get(pk=batch_id)
    if batch.state != IngestBatch.State.QUEUED:
        return
    readings = Readings(batch)
    try:
        try:
            _load(batch, readings)
        except UnknownSeriesError:  # seldom: a process remembers those that it has met
            readings.learn_series()
            _load(batch, readings)
    except ledger.TooManyRejectsError as error:
        ledger.park_job(batch, readings.rejects, str(error))
    if spool.is_spooled(batch.file.location):
        discard_inputs_when_done(batch.job_id)


def _load(batch: IngestBatch, readings: Readings) -> None:
    """COPY and say so in the ledger; while the server takes in one piece, the next is parsed."""
    with transaction.atomic():
        if not ledger.claim(batch.pk):
            return
        copied = copy_readings(readings, batch.job.on_conflict)
        _require_series(readings.series)
        rejects.write(batch, readings.rejects)
        ledger.finish(batch, readings.rejects, counts=_counts(readings, copied))
    logger.info("%s: %d readings inserted, %d rows rejected", batch, copied.inserted, len(readings.rejects))


def _counts(readings: Readings, copied: Copied) -> ledger.Counts:
    return ledger.Counts(
        row_count=readings.rows,
        rejected_count=len(readings.rejects),
        cell_count=readings.cells,
        empty_count=readings.cells - readings.count,
        inserted_count=copied.inserted,
        updated_count=copied.updated,
        skipped_count=readings.count - copied.inserted - copied.updated,
    )


def _require_series(ids: set[int]) -> None:
    """Refuse readings of a series that has been deleted since this process learnt its id; the next try asks again.

    Raises:
        django.db.OperationalError: a series is gone.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM series WHERE id = ANY(%s)", [list(ids)])
        if cursor.fetchone() != (len(ids),):
            forget_series()
            raise OperationalError("a series was deleted while its readings were being loaded")


def _distinct_of_sorted(ids: np.ndarray) -> list[int]:
    distinct: list[int] = ids[np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1))].tolist()
    return distinct


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
    return pa.RecordBatch.from_arrays(arrays, schema=READINGS)


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


def copy_readings(readings: Readings, on_conflict: str) -> Copied:
    """COPY readings through Django's own connection, in its transaction.

    COPY knows no ON CONFLICT, so readings that are there already cost a second way, through a temporary table.

    Raises:
        DuplicateReadingError: on_conflict is error, and a reading is there already or comes twice.
    """
    try:
        with transaction.atomic():
            _copy("reading", readings)
        return Copied(readings.count)
    except IntegrityError as error:
        if not isinstance(error.__cause__, psycopg2.errors.UniqueViolation):
            raise
        if on_conflict == IngestJob.OnConflict.ERROR:
            raise DuplicateReadingError(f"a reading is there already: {error}") from error
    return _merge(readings, on_conflict)


def _merge(readings: Readings, on_conflict: str) -> Copied:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE reading_batch (LIKE reading) ON COMMIT DROP")
        _copy("reading_batch", readings)
        cursor.execute(MERGE[IngestJob.OnConflict(on_conflict)])
        return Copied(*cursor.fetchone())


class _Encoder(io.RawIOBase):
    """Readings as PostgreSQL's binary COPY format, made a piece at a time while the server takes in the last one."""

    def __init__(self, readings: Readings) -> None:
        self._pieces = filter(None, self._encode(readings))  # an empty one would pass for the end
        self.failure: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        """Give the next piece, whatever size is asked for: psycopg2 sends what it gets."""
        try:
            return next(self._pieces, b"")
        except Exception as error:
            self.failure = error
            raise

    @staticmethod
    def _encode(readings: Readings) -> Iterator[bytes]:
        encoder = pgpq.ArrowToPostgresBinaryEncoder(READINGS)
        yield encoder.write_header()
        for piece in readings:
            for first in range(0, piece.num_rows, ENCODED_ROWS):
                yield encoder.write_batch(piece.slice(first, ENCODED_ROWS))
        yield encoder.finish()


def _copy(table: str, readings: Readings) -> None:
    statement = f"COPY {table} (time, series_id, value) FROM STDIN (FORMAT binary)"
    encoder = _Encoder(readings)
    try:
        # Django wraps the errors of what it knows; of COPY it does not know.
        with connection.wrap_database_errors, connection.cursor() as cursor:
            cursor.copy_expert(statement, encoder)
            copied = cursor.rowcount
    except DatabaseError:
        if encoder.failure is not None:  # the server only says that COPY was given up
            raise encoder.failure from None
        raise
    if copied != readings.count:  # the ledger is about to say that all of them are there
        raise DataError(f"the server took {copied} of {readings.count} readings")
