"""The ledger: what becomes of a batch. Nothing else writes its state, but for the job that records it as queued."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Case, DateTimeField, F, Max, Min, QuerySet, Sum, Value, When
from django.db.models.expressions import Combinable
from django.db.models.functions import Greatest, Now
from django.utils import timezone

from telemetry.formats import Reject
from telemetry.formats.times import EPOCH
from telemetry.models import IngestBatch, IngestJob, IngestRejectCount
from telemetry.queue import Waiting, spread
from telemetry.rejects import Tally

logger = logging.getLogger(__name__)

# The upper half of the keys of advisory locks with which workers mark the batch that they are loading ("ING" in ASCII).
LOADING_LOCK_CLASS = 0x494E47
# In one look; the next look sends what is left.
RESENT_MAX = 1000
# An attempt that was due for longer when it was made: until then nobody was there to make it.
UNATTENDED_S = 3600


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
    rounded_count: int


def loading_lock_key(batch_id: int) -> int:
    """Return the key of the advisory lock that marks a batch as being loaded."""
    return (LOADING_LOCK_CLASS << 32) | (batch_id & 0xFFFFFFFF)


@contextmanager
def loading(batch_id: int) -> Iterator[bool]:
    """Mark a batch as being loaded by this process for the length of a block; yield False if another one is loading it.

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
    """Count an attempt before anything can go wrong.

    Returns:
        How many attempts there were with this one; 0 if none is due: the batch is not queued any more, or this is a
        second message for a batch whose next attempt is due later.
    """
    with connection.cursor() as cursor:
        # The commit need not wait for the disk: should the server crash right now, an attempt is forgotten, no more.
        cursor.execute(
            """
            UPDATE ingest_batch SET attempts = attempts + 1
            WHERE id = %s AND state = 'queued' AND due_at <= now()
              AND set_config('synchronous_commit', 'off', true) IS NOT NULL
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


def finish(batch: IngestBatch, rejected: Tally, *, counts: Counts) -> None:
    """Record that a batch is loaded, in the transaction that loads it.

    Raises:
        TooManyRejectsError: its job may not have so many rejects.
    """
    if rejected.rows:
        require_few_rejects(batch, rejected)
        _count_rejects(batch.pk, rejected)
    IngestBatch.objects.filter(pk=batch.pk).update(
        state=IngestBatch.State.DONE, error="", failing_since=None, finished_at=timezone.now(), **asdict(counts)
    )


@transaction.atomic
def require_few_rejects(batch: IngestBatch, rejected: Tally) -> None:
    """Add up over the job; its row is locked, so that two batches at once cannot overlook each other.

    Raises:
        TooManyRejectsError: its job may not have so many rejects.
    """
    limit = IngestJob.objects.select_for_update(no_key=True).get(pk=batch.job_id).max_rejected_count
    if limit is None:
        return
    done = IngestBatch.objects.filter(job_id=batch.job_id, state=IngestBatch.State.DONE)
    rows = rejected.rows + (done.aggregate(rows=Sum("rejected_count"))["rows"] or 0)
    if rows > limit:
        raise TooManyRejectsError(f"{rows:,} rows cannot be read, allowed: {limit:,}{_example(batch, rejected.first)}")


def _example(batch: IngestBatch, first: Reject | None) -> str:
    if first is None:
        return ""
    return f"; the first here is {batch.file.name}:{first.line}: {first.column or 'row'}: {first.detail}"


def _count_rejects(batch_id: int, rejected: Tally) -> None:
    IngestRejectCount.objects.bulk_create(
        IngestRejectCount(batch_id=batch_id, reason=reason, column_name=column, row_count=rows)
        for (reason, column), rows in rejected.by_reason.items()
    )


@transaction.atomic
def park_job(batch: IngestBatch, rejected: Tally, reason: str) -> None:
    """Park a batch that has too many rejects, which are counted, and the queued batches of its job."""
    if claim(batch.pk):
        _queued(batch.pk).update(rejected_count=rejected.rows)
        _count_rejects(batch.pk, rejected)
        _set_parked(_queued(batch.pk), reason)
        _set_parked(unclaimed_batches(batch.job_id), reason)
        logger.error("job %d parked: %s", batch.job_id, reason)


def note_failure(batch_id: int, reason: str, *, retried_in_s: float) -> bool:
    """Record what went wrong in an attempt, and park the batch if that was the last.

    Args:
        batch_id: the batch.
        reason: what went wrong.
        retried_in_s: when the next attempt is due.

    Returns:
        True if there may be another attempt.
    """
    attempts = _queued(batch_id).values_list("attempts", flat=True).first()
    if attempts is None:
        return False
    if attempts >= settings.INGEST_MAX_ATTEMPTS:
        park(batch_id, f"{attempts} attempts failed, the last with {reason}")
        return False
    _queued(batch_id).update(error=_one_line(reason), due_at=_from_now(retried_in_s), failing_since=None)
    return True


@dataclass(frozen=True)
class Interruption:
    """The end of an attempt for a reason that passes: the server or the spool was away, not the batch at fault."""

    reason: str
    failed_at_s: float
    """seconds since 1970"""
    is_counted: bool
    """whether `begin` has counted the attempt"""


def note_interruption(batch_id: int, interruption: Interruption, *, retried_in_s: float) -> bool:
    """Record an interruption and give its attempt back; park the batch if INGEST_RETRY_MAX_S have passed with such.

    Returns:
        True if there may be another attempt, which is due in `retried_in_s`.
    """
    counted = Greatest(F("attempts") - 1, 0) if interruption.is_counted else F("attempts")
    failed_at = Value(datetime.fromtimestamp(interruption.failed_at_s, UTC), output_field=DateTimeField())
    # Time in which no worker made an attempt that was due does not count as interrupted.
    was_tried = When(due_at__gte=_from_now(-UNATTENDED_S), failing_since__isnull=False, then=F("failing_since"))
    _queued(batch_id).update(
        attempts=counted,
        error=_one_line(interruption.reason),
        due_at=_from_now(retried_in_s),
        failing_since=Case(was_tried, default=failed_at),
    )
    since = _queued(batch_id).values_list("failing_since", flat=True).first()
    if since is None:
        return False
    if timezone.now() - since < timedelta(seconds=settings.INGEST_RETRY_MAX_S):
        return True
    park(
        batch_id,
        f"every attempt since {since:%Y-%m-%d %H:%M:%S} UTC was interrupted, for more than INGEST_RETRY_MAX_S = "
        f"{settings.INGEST_RETRY_MAX_S} s; the last: {interruption.reason}",
    )
    return False


def _from_now(seconds: float) -> Combinable:
    """Return a time by the database's clock: those of the machines of web and workers may differ from it."""
    return Now() + timedelta(seconds=seconds)


def park(batch_id: int, reason: str) -> None:
    """Park a batch, and record why."""
    logger.error("batch %d parked: %s", batch_id, reason)
    _set_parked(_queued(batch_id), reason)


def park_after_deaths(batch_id: int, attempts: int) -> None:
    """Park a batch whose last attempt ended because its process died, and keep the error that was recorded before."""
    recorded = _queued(batch_id).values_list("error", flat=True).first()
    before = f"; the error recorded before: {recorded}" if recorded else ""
    park(
        batch_id,
        f"{attempts} attempts failed, and the process of the last one was killed, or ran out of memory{before}",
    )


def _set_parked(queued: "QuerySet[IngestBatch]", reason: str) -> None:
    queued.update(state=IngestBatch.State.PARKED, error=_one_line(reason), finished_at=timezone.now())


def queue_again(batches: "QuerySet[IngestBatch]") -> int:
    """Queue parked and cancelled batches again, with a full number of attempts; return how many there are.

    To be called in a transaction.
    """
    batch_ids = list(batches.select_for_update().order_by("pk").values_list("pk", flat=True))
    again = IngestBatch.objects.filter(pk__in=batch_ids)
    IngestRejectCount.objects.filter(batch_id__in=batch_ids).delete()
    again.update(
        state=IngestBatch.State.QUEUED,
        attempts=0,
        chunk_limit=None,
        error="",
        rejected_count=0,
        finished_at=None,
        enqueued_at=Now(),
        due_at=Now(),
        failing_since=None,
        sent_at=None,
    )
    IngestJob.objects.filter(pk__in=again.values("job_id")).update(unsent_since=Now(), cancelled_at=None)
    return len(batch_ids)


def unclaimed_batches(job_id: int) -> "QuerySet[IngestBatch]":
    """The batches of a job that are queued and that no worker is loading, for which one would have to wait."""
    queued = IngestBatch.objects.filter(job_id=job_id, state=IngestBatch.State.QUEUED)
    return IngestBatch.objects.filter(pk__in=queued.select_for_update(skip_locked=True).values("pk"))


@transaction.atomic
def cancel_unclaimed(job_id: int) -> int:
    """Cancel the queued batches of a job that nobody is loading; return how many there were."""
    return unclaimed_batches(job_id).update(state=IngestBatch.State.CANCELLED, finished_at=timezone.now())


@transaction.atomic
def next_unsent(job_id: int, limit: int) -> tuple[list[int], bool]:
    """Mark batches of a job that were never sent as sent now.

    Args:
        job_id: the job.
        limit: how many batches of the job may have been sent and not be over, at most.

    Returns:
        Their ids, in the order in which they are to be sent, and whether the rest is to be asked for again after them.
        There are none if so many are under way already: another message does the same for this job.
    """
    jobs = IngestJob.objects.filter(pk=job_id)
    if not jobs.select_for_update(no_key=True).exists():
        return [], False
    queued = IngestBatch.objects.filter(job_id=job_id, state=IngestBatch.State.QUEUED)
    room = limit - queued.filter(sent_at__isnull=False)[:limit].count()
    if room <= 0:
        return [], False
    unsent = queued.filter(sent_at=None)
    batch_ids = list(_from_each_lane(unsent, settings.WORKER_PROCESSES, room))
    mark_sent(batch_ids)
    is_rest = unsent.exists()
    jobs.update(unsent_since=Now() if is_rest else None)
    return spread(batch_ids, settings.WORKER_PROCESSES), is_rest


def _from_each_lane(unsent: "QuerySet[IngestBatch]", lanes: int, limit: int) -> Iterator[int]:
    """Yield the first ids of each lane: a part of the job's file through which one worker process makes its way."""
    bounds = unsent.aggregate(first=Min("pk"), last=Max("pk"))
    if bounds["first"] is None:
        return
    width = -(-(bounds["last"] + 1 - bounds["first"]) // lanes)
    for begin_id in range(bounds["first"], bounds["last"] + 1, width):
        lane = unsent.filter(pk__gte=begin_id, pk__lt=begin_id + width).order_by("pk")
        yield from lane.values_list("pk", flat=True)[: -(-limit // lanes)]


def lost_batches(waiting: Waiting) -> list[int]:
    """Mark the batches as sent again whose messages are lost: sent and due for long, neither waiting nor being loaded.

    Args:
        waiting: what the broker's queue has at its head.

    Returns:
        Their ids, RESENT_MAX at most.
    """
    long_ago = _from_now(-settings.INGEST_RESEND_AFTER_S)
    overdue = IngestBatch.objects.filter(state=IngestBatch.State.QUEUED, due_at__lt=long_ago, sent_at__lt=long_ago)
    if not waiting.is_all:
        overdue = overdue.filter(sent_at__lt=_taken_before(waiting))
    with transaction.atomic():
        batches = overdue.select_for_update(skip_locked=True).exclude(pk__in=_being_loaded() | waiting.batch_ids)
        lost = list(batches.order_by("pk").values_list("pk", flat=True)[:RESENT_MAX])
        mark_sent(lost)
    return lost


def mark_sent(batch_ids: list[int]) -> None:
    """Record that messages of batches are sent now."""
    IngestBatch.objects.filter(pk__in=batch_ids).update(sent_at=Now())


def lost_jobs(waiting: Waiting) -> list[int]:
    """Mark the jobs as announced again that have batches that were never sent, and for which no message waits.

    Args:
        waiting: what the broker's queue has at its head.

    Returns:
        Their ids, RESENT_MAX at most.
    """
    jobs = IngestJob.objects.filter(unsent_since__lt=_from_now(-settings.INGEST_RESEND_AFTER_S))
    if not waiting.is_all:
        jobs = jobs.filter(unsent_since__lt=_taken_before(waiting))
    lost = list(jobs.exclude(pk__in=waiting.job_ids).order_by("pk").values_list("pk", flat=True)[:RESENT_MAX])
    IngestJob.objects.filter(pk__in=lost, unsent_since__isnull=False).update(unsent_since=Now())
    return lost


def _taken_before(waiting: Waiting) -> datetime:
    """Return a time before which every message was sent that has been taken from the queue, or is at its head.

    The queue is first in, first out: what was sent earlier than all that is at its head waits nowhere in it.
    """
    sent = IngestBatch.objects.filter(pk__in=waiting.batch_ids).aggregate(first=Min("sent_at"))["first"]
    unsent = IngestJob.objects.filter(pk__in=waiting.job_ids).aggregate(first=Min("unsent_since"))["first"]
    return min((time for time in (sent, unsent) if time is not None), default=EPOCH)


def _being_loaded() -> set[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT objid::bigint FROM pg_locks
            WHERE locktype = 'advisory' AND classid = %s AND granted
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            """,
            [LOADING_LOCK_CLASS],
        )
        return {batch_id for (batch_id,) in cursor.fetchall()}


def note_cancellation(batch_id: int) -> bool:
    """Return True, and record it, if a batch that is being loaded is one of a job that somebody cancelled meanwhile."""
    asked = IngestBatch.objects.filter(pk=batch_id, state=IngestBatch.State.QUEUED, job__cancelled_at__isnull=False)
    return bool(asked.update(state=IngestBatch.State.CANCELLED, finished_at=timezone.now()))


def _queued(batch_id: int) -> "QuerySet[IngestBatch]":
    return IngestBatch.objects.filter(pk=batch_id, state=IngestBatch.State.QUEUED)


def _one_line(text: str) -> str:
    return " ".join(text.split())
