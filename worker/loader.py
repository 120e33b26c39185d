"""One batch: COPY its readings, and say so in the ledger, in one transaction."""

import io
import logging
import time
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial

import pgpq
import psycopg2.errors
import pyarrow as pa
from django.conf import settings
from django.db import DatabaseError, DataError, IntegrityError, OperationalError, connection, transaction

from telemetry import ledger
from telemetry.chunks import chunk_budget, chunk_edges, chunk_facts
from telemetry.models import IngestBatch, IngestJob
from worker import progress
from worker.progress import Loaded, LockTableFullError, is_lock_exhaustion
from worker.readings import SCHEMA, Readings, Stream, TooManyChunksError, merge_sorted, within
from worker.series import UnknownSeriesError, forget_series
from worker.survey import EARLIEST_US, LATEST_US, Portion, portions, span_of, windows

logger = logging.getLogger(__name__)

# Enough to spare calls, little enough to stay in the processor's cache: 34 bytes a row.
ENCODED_ROWS = 16_384
# Of a batch that is loaded in portions: 20 bytes each, and as much again while they are sorted.
HELD_READINGS = 2_000_000

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


def load(batch_id: int) -> bool:
    """Load a batch that is queued; one that is not, or that another worker is loading, is left alone.

    A batch that touches more chunks than one transaction may is loaded in several.

    Returns:
        False if the rest of it is for another task, since this one has taken long.

    Raises:
        BadInput: the slice cannot be read.
        DuplicateReadingError: the job refuses duplicates, and there is one.
        django.db.OperationalError: among others, when the server is away; the batch is as it was.
    """
    batch = IngestBatch.objects.select_related("job", "file").get(pk=batch_id)
    if batch.state != IngestBatch.State.QUEUED:
        return True
    is_over = True
    chunk_limit = min(chunk_budget(), batch.chunk_limit or chunk_budget())
    readings = Readings(batch, chunk_limit, chunk_facts().least_us)
    try:
        if batch.loaded_until_us is not None or not _load_at_once(batch, readings):
            is_over = _load_in_portions(batch, readings, chunk_limit)
    except ledger.TooManyRejectsError as error:
        ledger.park_job(batch, readings.rejected, str(error))
    except OperationalError as error:
        if is_lock_exhaustion(error):
            raise LockTableFullError(error, readings.chunk_count) from error.__cause__
        raise
    return is_over


def _load_at_once(batch: IngestBatch, readings: Readings) -> bool:
    """Load in one transaction; False if the batch touches too many chunks for that."""
    try:
        try:
            _load(batch, readings)
        except UnknownSeriesError:  # seldom: a process remembers those that it has met
            readings.learn_series()
            _load(batch, readings)
    except TooManyChunksError:
        return False
    return True


def _load(batch: IngestBatch, readings: Readings) -> None:
    """COPY and say so in the ledger; while the server takes in one piece, the next is parsed."""
    with transaction.atomic():
        if not ledger.claim(batch.pk):
            return
        _finish(batch, readings, copy_readings(readings, batch.job.on_conflict))


def _finish(batch: IngestBatch, readings: Readings, loaded: Loaded) -> None:
    counts = ledger.Counts(
        row_count=readings.rows,
        rejected_count=readings.rejected.rows,
        cell_count=readings.cells,
        empty_count=readings.cells - loaded.count - readings.rounded,
        inserted_count=loaded.inserted,
        updated_count=loaded.updated,
        skipped_count=loaded.skipped,
        rounded_count=readings.rounded,
    )
    ledger.finish(batch, readings.rejected, counts=counts)
    logger.info("%s: %d readings inserted, %d rows rejected", batch, loaded.inserted, readings.rejected.rows)


def _load_in_portions(batch: IngestBatch, readings: Readings, chunk_limit: int) -> bool:
    """Load in order of time, each portion in a transaction of its own; False if there is more to load.

    Readings of the same series and time are in the same portion, so the order of the file holds among them.
    """
    deadline = time.monotonic() + settings.INGEST_TIME_LIMIT_S / 2
    since_us = EARLIEST_US if batch.loaded_until_us is None else batch.loaded_until_us
    rows_by_chunk = readings.survey(since_us, chunk_edges(), chunk_facts().interval_us)
    ledger.require_few_rejects(batch, readings.rejected)
    found = portions(rows_by_chunk, since_us, chunk_limit)
    logger.info("%s touches %d chunks: %d transactions", batch, len(rows_by_chunk), len(found))
    for window in windows(found, HELD_READINGS // readings.width):
        pieces = _pieces(readings, window)
        for portion in window:
            if not _load_portion(batch, readings, portion, Stream(partial(pieces, portion))):
                return True
            if time.monotonic() > deadline and portion is not found[-1]:
                return False
    return True


def _pieces(readings: Readings, window: list[Portion]) -> Callable[[Portion], Generator[pa.RecordBatch]]:
    """Hold what is loaded next, rather than parse the whole slice for each portion; one too large to hold is parsed."""
    if window[0].row_count * readings.width > HELD_READINGS:
        return readings.between
    held = merge_sorted(readings.between(span_of(window)))
    return lambda portion: (within(held, each) for each in [portion])


def _load_portion(batch: IngestBatch, readings: Readings, portion: Portion, stream: Stream) -> bool:
    """COPY a portion and say so in the ledger; False if the batch is not to be loaded any more."""
    with transaction.atomic():
        if ledger.note_cancellation(batch.pk) or not ledger.claim(batch.pk):
            return False
        loaded = copy_readings(stream, batch.job.on_conflict)
        if portion.end_us == LATEST_US:
            _finish(batch, readings, progress.loaded(batch.pk) + loaded)
        else:
            progress.advance(batch.pk, portion.end_us, loaded)
    return True


def _require_series(ids: set[int]) -> None:
    """Refuse readings of a series that has been deleted since this process learnt its id; the next try asks again.

    Raises:
        django.db.OperationalError: a series is gone.
    """
    with connection.cursor() as cursor:
        # One text is quicker to read for the server than a thousand numbers.
        cursor.execute("SELECT count(*) FROM series WHERE id = ANY(%s::int[])", [f"{{{','.join(map(str, ids))}}}"])
        if cursor.fetchone() != (len(ids),):
            forget_series()
            raise OperationalError("a series was deleted while its readings were being loaded")


def copy_readings(readings: Stream, on_conflict: str) -> Loaded:
    """COPY readings through Django's own connection, in its transaction.

    COPY knows no ON CONFLICT, so readings that are there already cost a second way, through a temporary table.

    Raises:
        DuplicateReadingError: on_conflict is error, and a reading is there already or comes twice.
        django.db.OperationalError: a series is gone.
    """
    inserted, updated = _copy_or_merge(readings, on_conflict)
    _require_series(readings.series)
    return Loaded(inserted, updated, readings.count - inserted - updated)


def _copy_or_merge(readings: Stream, on_conflict: str) -> tuple[int, int]:
    try:
        with transaction.atomic():
            _copy("reading", readings)
        return readings.count, 0
    except IntegrityError as error:
        if not isinstance(error.__cause__, psycopg2.errors.UniqueViolation):
            raise
        if on_conflict == IngestJob.OnConflict.ERROR:
            detail = error.__cause__.diag.message_detail
            raise DuplicateReadingError(f"a reading is there already, or comes twice: {detail}") from error
    return _merge(readings, on_conflict)


def _merge(readings: Stream, on_conflict: str) -> tuple[int, int]:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE reading_batch (LIKE reading) ON COMMIT DROP")
        _copy("reading_batch", readings)
        cursor.execute(MERGE[IngestJob.OnConflict(on_conflict)])
        inserted, updated = cursor.fetchone()
        return inserted, updated


class _Encoder(io.RawIOBase):
    """Readings as PostgreSQL's binary COPY format, made a piece at a time while the server takes in the last one."""

    def __init__(self, readings: Stream) -> None:
        self._pieces = self._encode(readings)
        self.failure: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        """Return the next piece, whatever size is asked for: psycopg2 sends what it gets."""
        try:
            return next(filter(None, self._pieces), b"")  # an empty one would pass for the end
        except Exception as error:
            self.failure = error
            raise

    def close(self) -> None:
        """End reading; what was written of the rejects is complete then, and the next time may write it anew."""
        self._pieces.close()
        super().close()

    @staticmethod
    def _encode(readings: Stream) -> Generator[bytes]:
        encoder = pgpq.ArrowToPostgresBinaryEncoder(SCHEMA)
        yield encoder.write_header()
        with closing(iter(readings)) as pieces:
            for piece in pieces:
                for first in range(0, piece.num_rows, ENCODED_ROWS):
                    yield encoder.write_batch(piece.slice(first, ENCODED_ROWS))
        yield encoder.finish()


def _copy(table: str, readings: Stream) -> None:
    statement = f"COPY {table} (time, series_id, value) FROM STDIN (FORMAT binary)"
    with closing(_Encoder(readings)) as encoder:
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
