"""Read-only queries on the ledger; they do not depend on the file formats."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from math import inf
from typing import Any

from django.db import connection
from django.db.models import Count, F, Max, Min, Sum

from telemetry.models import IngestBatch, IngestJob, IngestRejectCount

RETRIES_MAX = 20


@dataclass(frozen=True)
class Progress:
    """The progress of a job.

    `rows`, `rows_done` and `rejected` count input rows. `inserted`, `updated`, `skipped`, `rounded` and `empty` count
    the value cells of the rows that were not rejected, and add up to their number. All counts except `rows` are of
    finished batches, and of the loaded part of batches that take several transactions.
    """

    job_id: int
    created_at: datetime
    batches: int
    done: int
    parked: int
    cancelled: int
    rows: int
    rows_done: int
    inserted: int
    updated: int
    skipped: int
    rounded: int
    empty: int
    rejected: int
    finished_at: datetime | None

    @property
    def state(self) -> str:
        """One of JOB_STATES; a job that is over is parked if any batch is, else cancelled if any batch is."""
        over = self.done + self.parked + self.cancelled
        if over < self.batches:
            return "running" if over else "queued"
        return "parked" if self.parked else "cancelled" if self.cancelled else "done"

    @property
    def is_over(self) -> bool:
        """True if no batch is queued any more."""
        return self.state in ("done", "parked", "cancelled")

    @property
    def elapsed_s(self) -> float | None:
        """Seconds from the job's creation to the end of its last batch; None while it is not over."""
        return (self.finished_at - self.created_at).total_seconds() if self.is_over and self.finished_at else None


def all_progress(*, limit: int | None = None, before: int | None = None) -> list[Progress]:
    """Return the progress of all jobs, newest first.

    Args:
        limit: the maximum number of jobs.
        before: only jobs with an id below this.
    """
    return _progress("%(before)s::bigint IS NULL OR id < %(before)s", {"before": before, "limit": limit})


def job_progress(job_id: int) -> Progress | None:
    """Return the progress of a job, or None if it does not exist."""
    if job_id >= 2**63:
        return None
    return next(iter(_progress("id = %(id)s", {"id": job_id, "limit": 1})), None)


def progress_of(job_ids: Sequence[int]) -> list[Progress]:
    """Return the progress of the given jobs, newest first."""
    return _progress("id = ANY(%(ids)s)", {"ids": list(job_ids), "limit": None}) if job_ids else []


def _progress(condition: str, parameters: dict[str, Any]) -> list[Progress]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT job.id, job.created_at,
                   count(batch.id),
                   count(*) FILTER (WHERE state = 'done'),
                   count(*) FILTER (WHERE state = 'parked'),
                   count(*) FILTER (WHERE state = 'cancelled'),
                   coalesce(sum(row_count), 0)::bigint,
                   coalesce(sum(
                       CASE WHEN state <> 'queued' THEN row_count
                            ELSE least(row_count, cell_count / cardinality(value_columns)) END
                   ), 0)::bigint,
                   coalesce(sum(inserted_count), 0)::bigint,
                   coalesce(sum(updated_count), 0)::bigint,
                   coalesce(sum(skipped_count), 0)::bigint,
                   coalesce(sum(rounded_count), 0)::bigint,
                   coalesce(sum(empty_count), 0)::bigint,
                   coalesce(sum(rejected_count), 0)::bigint,
                   CASE WHEN bool_and(state <> 'queued') THEN max(finished_at) END
            FROM (
                SELECT id, created_at, value_columns FROM ingest_job WHERE {condition} ORDER BY id DESC LIMIT %(limit)s
            ) job
            LEFT JOIN ingest_batch batch ON batch.job_id = job.id
            GROUP BY job.id, job.created_at
            ORDER BY job.id DESC
            """,  # noqa: S608 - the condition is one of those above
            parameters,
        )
        return [Progress(*row) for row in cursor.fetchall()]


def progress_document(progress: Progress) -> dict[str, Any]:
    """Return a job's progress as JSON data."""
    return {"state": progress.state, **asdict(progress), "elapsed_s": progress.elapsed_s}


def job_document(progress: Progress, *, parked_limit: int | None = None) -> dict[str, Any]:
    """Return a job's progress, warnings and errors as JSON data, with at most `parked_limit` parked batches."""
    return {
        **progress_document(progress),
        "warnings": job_warnings(progress.job_id),
        "parked_batches": parked_batches(progress.job_id, limit=parked_limit),
        "retries": pending_retries(progress.job_id),
        "rejects": reject_counts(progress.job_id),
    }


@dataclass(frozen=True)
class Backlog:
    """The batches that wait to be loaded, and the rate at which batches finish."""

    batches: int
    finished_per_s: float
    """over the last minute"""

    def wait_s(self, limit: int) -> float:
        """Return the seconds until fewer than `limit` batches wait, at the current rate; infinite if the rate is 0."""
        excess = self.batches - limit + 1
        if excess <= 0:
            return 0.0
        return excess / self.finished_per_s if self.finished_per_s else inf


def backlog() -> Backlog:
    """Return the current backlog of all jobs."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT (SELECT count(*) FROM ingest_batch WHERE state = 'queued'),
                   (SELECT count(*) FROM ingest_batch WHERE finished_at > now() - interval '1 minute') / 60.0::float8
            """
        )
        return Backlog(*cursor.fetchone())


def job_warnings(job_id: int) -> list[str]:
    """Return a job's warnings: problems that do not prevent it from being loaded."""
    found = IngestJob.objects.filter(pk=job_id).values_list("warnings", flat=True)
    return [warning for warnings in found for warning in warnings]


def parked_batches(job_id: int, *, limit: int | None = None) -> list[dict[str, Any]]:
    """Return the parked batches of a job with their errors, at most `limit`."""
    parked = IngestBatch.objects.filter(job_id=job_id, state=IngestBatch.State.PARKED)
    return [dict(batch) for batch in parked.order_by("pk").values("id", "slice", "error", path=F("file__name"))[:limit]]


def pending_retries(job_id: int) -> list[dict[str, Any]]:
    """Return the errors after which queued batches of a job wait for another attempt, at most RETRIES_MAX of them.

    Each has the `error`, the number of `batches`, the maximum of their `attempts` (without interrupted ones), the time
    since which they are interrupted (`failing_since`, or None) and the time of the next attempt (`next_attempt_at`), by
    which they are sorted.
    """
    retried = IngestBatch.objects.filter(job_id=job_id, state=IngestBatch.State.QUEUED).exclude(error="")
    reasons = retried.values("error").annotate(
        batches=Count("pk"),
        attempts=Max("attempts"),
        failing_since=Min("failing_since"),
        next_attempt_at=Min("due_at"),
    )
    return [dict(reason) for reason in reasons.order_by("next_attempt_at", "error")[:RETRIES_MAX]]


def reject_counts(job_id: int) -> list[dict[str, Any]]:
    """Return the number of rejected rows of a job by reason and column, most frequent first."""
    counts = IngestRejectCount.objects.filter(batch__job_id=job_id).values("reason", column=F("column_name"))
    return [dict(count) for count in counts.annotate(rows=Sum("row_count")).order_by("-rows", "reason", "column")]
