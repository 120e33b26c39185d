"""Cancelling a job: its queued batches are not loaded, and those being loaded are stopped."""

import time
from dataclasses import dataclass

from django.db import connection
from django.utils import timezone

from telemetry import ledger
from telemetry.models import IngestBatch, IngestJob

STOP_TIMEOUT_S = 30.0
STOP_INTERVAL_S = 0.2


@dataclass(frozen=True)
class Cancelled:
    """The effect of a cancellation, in batches."""

    queued: int
    """cancelled before a worker loaded them"""
    stopped: int
    """cancelled while they were being loaded"""
    finished: int
    """loaded or parked before they could be stopped"""
    unstopped: int
    """not stopped by their worker in time"""

    def __str__(self) -> str:
        text = f"{_batches(self.queued + self.stopped)} cancelled"
        if self.stopped:
            text += f", {self.stopped} of them while being loaded"
        if self.finished:
            text += f"; {_batches(self.finished)} finished before being stopped"
        if self.unstopped:
            text += f"; {_batches(self.unstopped)} still being loaded: run manage.py cancel_ingest again"
        return text


def _batches(count: int) -> str:
    return f"{count} batch" if count == 1 else f"{count} batches"


def cancel_job(job_id: int, *, timeout_s: float = STOP_TIMEOUT_S) -> Cancelled:
    """Cancel a job's queued batches, including those that are being loaded.

    Args:
        job_id: the job.
        timeout_s: how long to wait for workers to stop.
    """
    # Committed first, so that a worker whose statement is cancelled finds the reason.
    IngestJob.objects.filter(pk=job_id).update(cancelled_at=timezone.now())
    queued = ledger.cancel_unclaimed(job_id)
    loading = list(_queued(job_id))
    deadline = time.monotonic() + timeout_s
    while (left := _queued(job_id)) and time.monotonic() < deadline:
        _stop_loading(left)  # repeatedly, because cancelling has no effect on a session between two statements
        time.sleep(STOP_INTERVAL_S)
        ledger.cancel_unclaimed(job_id)
    stopped = IngestBatch.objects.filter(pk__in=loading, state=IngestBatch.State.CANCELLED).count()
    return Cancelled(queued, stopped, len(loading) - stopped - len(left), len(left))


def _queued(job_id: int) -> list[int]:
    queued = IngestBatch.objects.filter(job_id=job_id, state=IngestBatch.State.QUEUED)
    return list(queued.values_list("pk", flat=True))


def _stop_loading(batch_ids: list[int]) -> None:
    """Cancel the statements of the sessions that are loading batches; the sessions have the same role as this one."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT pg_cancel_backend(pid) FROM pg_locks
            WHERE locktype = 'advisory' AND classid = %s AND objid::bigint = ANY(%s) AND objsubid = 1 AND granted
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            """,
            [ledger.LOADING_LOCK_CLASS, [batch_id & 0xFFFFFFFF for batch_id in batch_ids]],
        )
