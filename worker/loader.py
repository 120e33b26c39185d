"""Loading a batch: COPY its readings and record the result in the ledger, in one transaction."""

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

# Rows of 34 bytes: enough to save calls, few enough to fit into the processor's cache.
ENCODED_ROWS = 16_384
# Readings in memory of a batch that is loaded in portions: 20 bytes each, and twice that while they are sorted.
HELD_READINGS = 2_000_000

MERGE = {
    # Of several readings of a series with the same time, the first in the order of the file is kept.
    IngestJob.OnConflict.IGNORE: """
        WITH merged AS (
            INSERT INTO reading SELECT * FROM reading_batch ORDER BY series_id, time, ctid
            ON CONFLICT DO NOTHING
            RETURNING 1
        )
        SELECT count(*), 0 FROM merged
    """,
    # The last of several is kept. An inserted row has xmax 0, an updated row has not.
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
    """A reading exists already, and the job's on_conflict is error."""


def load(batch_id: int) -> bool:
    """Load a batch if it is queued and no other worker is loading it.

    A batch that touches more chunks than one transaction may is loaded in several.

    Returns:
        False if another task has to load the rest, because this one has taken long.

    Raises:
        BadInput: the slice cannot be read.
        DuplicateReadingError: a reading exists already, and the job's on_conflict is error.
        django.db.OperationalError: among others, the server is not available; the batch is unchanged.
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
    """Load in one transaction; return False if the batch touches too many chunks for that."""
    try:
        try:
            _load(batch, readings)
        except UnknownSeriesError:  # rare, since a process remembers the series of earlier batches
            readings.learn_series()
            _load(batch, readings)
    except TooManyChunksError:
        return False
    return True


def _load(batch: IngestBatch, readings: Readings) -> None:
    """COPY and record the result in the ledger; while the server loads one piece, the next is parsed."""
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
    """Load in order of time, each portion in its own transaction; return False if there is more to load.

    Readings of the same series and time are in the same portion, so they keep the order of the file.
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
    """Keep a window's readings in memory instead of parsing the slice for each portion, unless they are too many."""
    if window[0].row_count * readings.width > HELD_READINGS:
        return readings.between
    held = merge_sorted(readings.between(span_of(window)))
    return lambda portion: (within(held, each) for each in [portion])


def _load_portion(batch: IngestBatch, readings: Readings, portion: Portion, stream: Stream) -> bool:
    """COPY a portion and record it in the ledger; return False if the batch is not queued any more."""
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
    """Check that no series was deleted since this process cached its id; if one was, empty the cache for the next try.

    Raises:
        django.db.OperationalError: a series does not exist any more.
    """
    with connection.cursor() as cursor:
        # The server parses one text faster than a thousand numbers.
        cursor.execute("SELECT count(*) FROM series WHERE id = ANY(%s::int[])", [f"{{{','.join(map(str, ids))}}}"])
        if cursor.fetchone() != (len(ids),):
            forget_series()
            raise OperationalError("a series was deleted while its readings were being loaded")


def copy_readings(readings: Stream, on_conflict: str) -> Loaded:
    """COPY readings through Django's connection, in its transaction.

    COPY has no ON CONFLICT, so if readings exist already, the readings are copied again through a temporary table.

    Raises:
        DuplicateReadingError: on_conflict is error, and a reading exists already or occurs more than once.
        django.db.OperationalError: a series does not exist any more.
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
            raise DuplicateReadingError(
                f"a reading exists already, or occurs more than once in the batch, and on_conflict is error: {detail}"
            ) from error
    return _merge(readings, on_conflict)


def _merge(readings: Stream, on_conflict: str) -> tuple[int, int]:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE reading_batch (LIKE reading) ON COMMIT DROP")
        _copy("reading_batch", readings)
        cursor.execute(MERGE[IngestJob.OnConflict(on_conflict)])
        inserted, updated = cursor.fetchone()
        return inserted, updated


class _Encoder(io.RawIOBase):
    """Readings in PostgreSQL's binary COPY format, encoded piece by piece while the server loads the one before."""

    def __init__(self, readings: Stream) -> None:
        self._pieces = self._encode(readings)
        self.failure: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        """Return the next piece, of any size: psycopg2 sends whatever it gets."""
        try:
            return next(filter(None, self._pieces), b"")  # an empty piece would mean the end
        except Exception as error:
            self.failure = error
            raise

    def close(self) -> None:
        """Stop reading, which closes the file of rejected rows, so that the next attempt may rewrite it."""
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
            # Django does not wrap the errors of copy_expert by itself.
            with connection.wrap_database_errors, connection.cursor() as cursor:
                cursor.copy_expert(statement, encoder)
                copied = cursor.rowcount
        except DatabaseError:
            if encoder.failure is not None:  # the server's error only says that COPY failed
                raise encoder.failure from None
            raise
    if copied != readings.count:  # otherwise the ledger would record all of them as loaded
        raise DataError(f"COPY loaded {copied:,} of {readings.count:,} readings")
