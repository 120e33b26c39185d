"""What becomes of a batch: the only writers of its state, and the locks that say who is at it."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet, Sum
from django.utils import timezone

from telemetry.cancellation import LOADING_LOCK_CLASS, loading_lock_key
from telemetry.formats import Reject
from telemetry.intake import unclaimed_batches
from telemetry.models import IngestBatch, IngestJob, IngestRejectCount

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """What became of a batch's rows, and of the value cells of those that could be read; the database adds them up."""

    row_count: int
    rejected_count: int
    cell_count: int
    empty_count: int
    inserted_count: int
    updated_count: int
    skipped_count: int


@contextmanager
def loading(batch_id: int) -> Iterator[bool]:
    """Say for the length of a block that this process is loading a batch; False if another one is.

    The lock belongs to the database session: however the process ends, it ends too.
    """
    key = loading_lock_key(batch_id)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [key])
        (locked,) = cursor.fetchone()
    try:
        yield locked
    finally:
        if locked and connection.connection is not None and not connection.connection.closed:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [key])


def begin(batch_id: int) -> int:
    """Count an attempt before anything can go wrong; give how many there were with this one, or 0 if none is due."""
    with connection.cursor() as cursor:
        # The commit need not wait for the disk: should the server crash right now, an attempt is forgotten, no more.
        cursor.execute(
            """
            UPDATE ingest_batch SET attempts = attempts + 1
            WHERE id = %s AND state = 'queued' AND set_config('synchronous_commit', 'off', true) IS NOT NULL
            RETURNING attempts
            """,
            [batch_id],
        )
        row = cursor.fetchone()
        return row[0] if row else 0


def claim(batch_id: int) -> bool:
    """Lock the batch for this transaction, unless it is not queued any more or another worker has it.

    From here on no statement is timed out: a large COPY may take its time, and the task's time limit bounds it.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT set_config('statement_timeout', '0', true) FROM ingest_batch
            WHERE id = %s AND state = 'queued' FOR UPDATE SKIP LOCKED
            """,
            [batch_id],
        )
        return cursor.fetchone() is not None


class TooManyRejectsError(Exception):
    """A batch that brings its job above the number of rows that may be rejected."""


def finish(batch: IngestBatch, rejects: Sequence[Reject], *, counts: Counts) -> None:
    """Record that a batch is loaded, in the transaction that loads it.

    Raises:
        TooManyRejectsError: its job may not have so many rejects.
    """
    if rejects:
        require_few_rejects(batch, rejects)
        _count_rejects(batch.pk, rejects)
    IngestBatch.objects.filter(pk=batch.pk).update(
        state=IngestBatch.State.DONE, error="", finished_at=timezone.now(), **asdict(counts)
    )


@transaction.atomic
def require_few_rejects(batch: IngestBatch, rejects: Sequence[Reject]) -> None:
    """Add up over the job; its row is locked, so that two batches at once cannot overlook each other.

    Raises:
        TooManyRejectsError: its job may not have so many rejects.
    """
    limit = IngestJob.objects.select_for_update(no_key=True).get(pk=batch.job_id).max_rejected_count
    if limit is None:
        return
    done = IngestBatch.objects.filter(job_id=batch.job_id, state=IngestBatch.State.DONE)
    rejected = len(rejects) + (done.aggregate(rows=Sum("rejected_count"))["rows"] or 0)
    if rejected > limit:
        first = rejects[0]
        raise TooManyRejectsError(
            f"{rejected:,} rows cannot be read, allowed: {limit:,}; the first here is "
            f"{batch.file.name}:{first.line}: {first.column or 'row'}: {first.detail}"
        )


def _count_rejects(batch_id: int, rejects: Sequence[Reject]) -> None:
    counted = Counter((str(reject.fault), reject.column) for reject in rejects)
    IngestRejectCount.objects.bulk_create(
        IngestRejectCount(batch_id=batch_id, reason=reason, column_name=column, row_count=rows)
        for (reason, column), rows in counted.items()
    )


@transaction.atomic
def park_job(batch: IngestBatch, rejects: Sequence[Reject], reason: str) -> None:
    """Give up a batch for its rejects, which are counted, and with it what is queued of its job."""
    if claim(batch.pk):
        _queued(batch.pk).update(rejected_count=len(rejects))
        _count_rejects(batch.pk, rejects)
        _give_up(_queued(batch.pk), reason)
        _give_up(unclaimed_batches(batch.job_id), reason)
        logger.error("job %d parked: %s", batch.job_id, reason)


def note_failure(batch_id: int, reason: str, *, retried_in_s: float) -> bool:
    """Record what went wrong in an attempt, and park the batch if that was the last; True if there may be another.

    Args:
        batch_id: the batch.
        reason: what went wrong.
        retried_in_s: when there will be another; until then the batch is not overdue.
    """
    attempts = _queued(batch_id).values_list("attempts", flat=True).first()
    if attempts is None:
        return False
    if attempts >= settings.INGEST_MAX_ATTEMPTS:
        park(batch_id, f"{attempts} attempts failed, the last with {reason}")
        return False
    due_at = timezone.now() + timedelta(seconds=retried_in_s)
    _queued(batch_id).update(error=_one_line(reason), enqueued_at=due_at)
    return True


def park(batch_id: int, reason: str) -> None:
    """Record why a batch is given up, until somebody asks for another try."""
    logger.error("batch %d parked: %s", batch_id, reason)
    _give_up(_queued(batch_id), reason)


def _give_up(queued: "QuerySet[IngestBatch]", reason: str) -> None:
    queued.update(state=IngestBatch.State.PARKED, error=_one_line(reason), finished_at=timezone.now())


def lost_batches(waiting: set[int]) -> list[int]:
    """Take note of the batches that are due again: queued for long, not waiting in the broker, and loaded by nobody.

    Args:
        waiting: the batches that the broker has.
    """
    now = timezone.now()
    overdue = IngestBatch.objects.filter(
        state=IngestBatch.State.QUEUED, enqueued_at__lt=now - timedelta(seconds=settings.INGEST_RESEND_AFTER_S)
    )
    with transaction.atomic():
        batches = overdue.select_for_update(skip_locked=True).exclude(pk__in=_being_loaded()).order_by("pk").only("pk")
        lost = [batch.pk for batch in batches if batch.pk not in waiting]
        IngestBatch.objects.filter(pk__in=lost).update(enqueued_at=now)
    return lost


def _being_loaded() -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT objid::bigint FROM pg_locks
            WHERE locktype = 'advisory' AND classid = %s AND granted
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            """,
            [LOADING_LOCK_CLASS],
        )
        return [batch_id for (batch_id,) in cursor.fetchall()]


def _queued(batch_id: int) -> "QuerySet[IngestBatch]":
    return IngestBatch.objects.filter(pk=batch_id, state=IngestBatch.State.QUEUED)


def _one_line(text: str) -> str:
    return " ".join(text.split())
