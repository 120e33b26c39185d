"""The ledger records the state of each batch. Other modules only create batches, which are queued then."""

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

from poolhouse.formatting import one_line
from telemetry.formats import Reject
from telemetry.formats.times import EPOCH
from telemetry.models import IngestBatch, IngestJob, IngestRejectCount
from telemetry.queue import Waiting, spread
from telemetry.rejects import Tally

logger = logging.getLogger(__name__)

# Upper half of the advisory lock keys with which workers mark the batch that they are loading ("ING" in ASCII).
LOADING_LOCK_CLASS = 0x494E47
# In one run of the task; the next run sends the others.
RESENT_MAX = 1000
# If an attempt starts this much later than it was due, no worker was running meanwhile.
UNATTENDED_S = 3600


@dataclass(frozen=True)
class Counts:
    """What happened to the rows of a batch and to their value cells; a CHECK constraint verifies the sum."""

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

    The lock belongs to the database session, so that it is released however the process ends.
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
    """Count an attempt before it is made.

    Returns:
        The number of attempts including this one; 0 if none is due, because the batch is not queued any more, or
        because this is a second message for a batch whose next attempt is due later.
    """
    with connection.cursor() as cursor:
        # The commit need not wait for the disk: if the server crashes now, no more than this count is lost.
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
    """Lock a queued batch for this transaction; return False if it is not queued any more or locked by another worker.

    This also sets statement_timeout to 0 for the transaction: a large COPY may take long, and the task's time limit
    bounds it.
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
    """A batch's rejected rows exceed the limit of its job."""


def finish(batch: IngestBatch, rejected: Tally, *, counts: Counts) -> None:
    """Record that a batch is loaded, in the transaction that loads it.

    Raises:
        TooManyRejectsError: the job's rejected rows exceed its limit.
    """
    if rejected.rows:
        require_few_rejects(batch, rejected)
        _count_rejects(batch.pk, rejected)
    IngestBatch.objects.filter(pk=batch.pk).update(
        state=IngestBatch.State.DONE, error="", failing_since=None, finished_at=timezone.now(), **asdict(counts)
    )


@transaction.atomic
def require_few_rejects(batch: IngestBatch, rejected: Tally) -> None:
    """Check the rejected rows of a job including those of a batch; the job's row is locked against concurrent batches.

    Raises:
        TooManyRejectsError: the job's rejected rows exceed its limit.
    """
    limit = IngestJob.objects.select_for_update(no_key=True).get(pk=batch.job_id).max_rejected_count
    if limit is None:
        return
    done = IngestBatch.objects.filter(job_id=batch.job_id, state=IngestBatch.State.DONE)
    rows = rejected.rows + (done.aggregate(rows=Sum("rejected_count"))["rows"] or 0)
    if rows > limit:
        raise TooManyRejectsError(
            f"rejected rows of the job: {rows:,}, the limit is {limit:,}{_example(batch, rejected.first)}"
        )


def _example(batch: IngestBatch, first: Reject | None) -> str:
    if first is None:
        return ""
    column = f"column {first.column!r}: " if first.column else ""
    return f"; the first of this batch: {batch.file.name}:{first.line}: {column}{first.detail}"


def _count_rejects(batch_id: int, rejected: Tally) -> None:
    IngestRejectCount.objects.bulk_create(
        IngestRejectCount(batch_id=batch_id, reason=reason, column_name=column, row_count=rows)
        for (reason, column), rows in rejected.by_reason.items()
    )


@transaction.atomic
def park_job(batch: IngestBatch, rejected: Tally, reason: str) -> None:
    """Park a batch with too many rejected rows, record their counts, and park the queued batches of its job."""
    if claim(batch.pk):
        _queued(batch.pk).update(rejected_count=rejected.rows)
        _count_rejects(batch.pk, rejected)
        _set_parked(_queued(batch.pk), reason)
        _set_parked(unclaimed_batches(batch.job_id), reason)
        logger.error("job %d parked: %s", batch.job_id, reason)


def note_failure(batch_id: int, reason: str, *, retried_in_s: float) -> bool:
    """Record the error of a failed attempt, and park the batch if it was the last.

    Args:
        batch_id: the batch.
        reason: the error.
        retried_in_s: the delay of the next attempt.

    Returns:
        True if there may be another attempt.
    """
    attempts = _queued(batch_id).values_list("attempts", flat=True).first()
    if attempts is None:
        return False
    if attempts >= settings.INGEST_MAX_ATTEMPTS:
        park(
            batch_id,
            f"{attempts} attempts failed, the limit is {settings.INGEST_MAX_ATTEMPTS} (INGEST_MAX_ATTEMPTS); the last "
            f"error: {reason}",
        )
        return False
    _queued(batch_id).update(error=one_line(reason), due_at=_from_now(retried_in_s), failing_since=None)
    return True


@dataclass(frozen=True)
class Interruption:
    """The end of an attempt for a temporary reason outside the batch, such as a server that cannot be reached."""

    reason: str
    failed_at_s: float
    """seconds since 1970"""
    is_counted: bool
    """True if `begin` has counted the attempt"""


def note_interruption(batch_id: int, interruption: Interruption, *, retried_in_s: float) -> bool:
    """Record an interruption without counting its attempt; park the batch after INGEST_RETRY_MAX_S of interruptions.

    Returns:
        True if there may be another attempt, which is due in `retried_in_s`.
    """
    counted = Greatest(F("attempts") - 1, 0) if interruption.is_counted else F("attempts")
    failed_at = Value(datetime.fromtimestamp(interruption.failed_at_s, UTC), output_field=DateTimeField())
    # Time in which no worker was running, so that a due attempt was not made, does not count as interrupted.
    was_tried = When(due_at__gte=_from_now(-UNATTENDED_S), failing_since__isnull=False, then=F("failing_since"))
    _queued(batch_id).update(
        attempts=counted,
        error=one_line(interruption.reason),
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
        f"all attempts since {since:%Y-%m-%d %H:%M:%S} UTC were interrupted, longer than {settings.INGEST_RETRY_MAX_S} "
        f"s (INGEST_RETRY_MAX_S); the last error: {interruption.reason}",
    )
    return False


def _from_now(seconds: float) -> Combinable:
    """Return a time by the database's clock, since the clocks of the web and the workers may differ from it."""
    return Now() + timedelta(seconds=seconds)


def park(batch_id: int, reason: str) -> None:
    """Park a batch and record the reason."""
    logger.error("batch %d parked: %s", batch_id, reason)
    _set_parked(_queued(batch_id), reason)


def park_after_deaths(batch_id: int, attempts: int) -> None:
    """Park a batch whose last attempt ended with the death of its process; keep the error of the attempt before."""
    recorded = _queued(batch_id).values_list("error", flat=True).first()
    before = f"; the error of an earlier attempt: {recorded}" if recorded else ""
    park(
        batch_id,
        f"{attempts} attempts failed (INGEST_MAX_ATTEMPTS); the process of the last one was killed, for example for "
        f"lack of memory{before}",
    )


def _set_parked(queued: "QuerySet[IngestBatch]", reason: str) -> None:
    queued.update(state=IngestBatch.State.PARKED, error=one_line(reason), finished_at=timezone.now())


def queue_again(batches: "QuerySet[IngestBatch]") -> int:
    """Queue parked and cancelled batches again with no attempts counted, and return their number.

    Call it in a transaction.
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
    """Return the queued batches of a job that no worker has locked, and lock them."""
    queued = IngestBatch.objects.filter(job_id=job_id, state=IngestBatch.State.QUEUED)
    return IngestBatch.objects.filter(pk__in=queued.select_for_update(skip_locked=True).values("pk"))


@transaction.atomic
def cancel_unclaimed(job_id: int) -> int:
    """Cancel the queued batches of a job that no worker is loading, and return their number."""
    return unclaimed_batches(job_id).update(state=IngestBatch.State.CANCELLED, finished_at=timezone.now())


@transaction.atomic
def next_unsent(job_id: int, limit: int) -> tuple[list[int], bool]:
    """Mark unsent batches of a job as sent.

    Args:
        job_id: the job.
        limit: how many queued batches of the job may have been sent.

    Returns:
        The ids of the batches in the order to send them, and True if unsent batches are left, for which the task has
        to be sent again. There are none if the limit is reached; another message of the job will send them.
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
    """Yield the first ids of each lane, which is the part of the job's batches that one worker process loads."""
    bounds = unsent.aggregate(first=Min("pk"), last=Max("pk"))
    if bounds["first"] is None:
        return
    width = -(-(bounds["last"] + 1 - bounds["first"]) // lanes)
    for begin_id in range(bounds["first"], bounds["last"] + 1, width):
        lane = unsent.filter(pk__gte=begin_id, pk__lt=begin_id + width).order_by("pk")
        yield from lane.values_list("pk", flat=True)[: -(-limit // lanes)]


def lost_batches(waiting: Waiting) -> list[int]:
    """Find batches whose messages are lost, and mark them as sent again.

    They were sent and due more than INGEST_RESEND_AFTER_S ago, and are neither in the queue nor being loaded.

    Args:
        waiting: the messages at the head of the broker's queue.

    Returns:
        The ids of the batches, at most RESENT_MAX.
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
    """Record that the messages of batches are sent now."""
    IngestBatch.objects.filter(pk__in=batch_ids).update(sent_at=Now())


def lost_jobs(waiting: Waiting) -> list[int]:
    """Find jobs with unsent batches whose announcement is lost, and mark them as announced again.

    Args:
        waiting: the messages at the head of the broker's queue.

    Returns:
        The ids of the jobs, at most RESENT_MAX.
    """
    jobs = IngestJob.objects.filter(unsent_since__lt=_from_now(-settings.INGEST_RESEND_AFTER_S))
    if not waiting.is_all:
        jobs = jobs.filter(unsent_since__lt=_taken_before(waiting))
    lost = list(jobs.exclude(pk__in=waiting.job_ids).order_by("pk").values_list("pk", flat=True)[:RESENT_MAX])
    IngestJob.objects.filter(pk__in=lost, unsent_since__isnull=False).update(unsent_since=Now())
    return lost


def _taken_before(waiting: Waiting) -> datetime:
    """Return the send time of the oldest message at the head of the queue.

    The queue is first in, first out, so a message that was sent earlier cannot be in it any more.
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
    """Cancel a batch that is being loaded if its job was cancelled meanwhile, and return True then."""
    asked = IngestBatch.objects.filter(pk=batch_id, state=IngestBatch.State.QUEUED, job__cancelled_at__isnull=False)
    return bool(asked.update(state=IngestBatch.State.CANCELLED, finished_at=timezone.now()))


def _queued(batch_id: int) -> "QuerySet[IngestBatch]":
    return IngestBatch.objects.filter(pk=batch_id, state=IngestBatch.State.QUEUED)
