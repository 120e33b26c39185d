"""One batch: COPY its readings, and say so in the ledger, in one transaction."""

import io
import logging
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

import pgpq
import psycopg2.errors
from django.db import DatabaseError, DataError, IntegrityError, OperationalError, connection, transaction

from telemetry.models import IngestBatch, IngestJob
from worker import ledger
from worker.readings import SCHEMA, Readings
from worker.series import UnknownSeriesError, forget_series

logger = logging.getLogger(__name__)

# Enough to spare calls, little enough to stay in the processor's cache: 34 bytes a row.
ENCODED_ROWS = 16_384

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
        ledger.park_job(batch, readings.rejected, str(error))


def _load(batch: IngestBatch, readings: Readings) -> None:
    """COPY and say so in the ledger; while the server takes in one piece, the next is parsed."""
    with transaction.atomic():
        if not ledger.claim(batch.pk):
            return
        copied = copy_readings(readings, batch.job.on_conflict)
        _require_series(readings.series)
        ledger.finish(batch, readings.rejected, counts=_counts(readings, copied))
    logger.info("%s: %d readings inserted, %d rows rejected", batch, copied.inserted, readings.rejected.rows)


def _counts(readings: Readings, copied: Copied) -> ledger.Counts:
    return ledger.Counts(
        row_count=readings.rows,
        rejected_count=readings.rejected.rows,
        cell_count=readings.cells,
        empty_count=readings.cells - readings.count - readings.rounded,
        inserted_count=copied.inserted,
        updated_count=copied.updated,
        skipped_count=readings.count - copied.inserted - copied.updated,
        rounded_count=readings.rounded,
    )


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
            detail = error.__cause__.diag.message_detail
            raise DuplicateReadingError(f"a reading is there already, or comes twice: {detail}") from error
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
    def _encode(readings: Readings) -> Generator[bytes]:
        encoder = pgpq.ArrowToPostgresBinaryEncoder(SCHEMA)
        yield encoder.write_header()
        with closing(iter(readings)) as pieces:
            for piece in pieces:
                for first in range(0, piece.num_rows, ENCODED_ROWS):
                    yield encoder.write_batch(piece.slice(first, ENCODED_ROWS))
        yield encoder.finish()


def _copy(table: str, readings: Readings) -> None:
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
