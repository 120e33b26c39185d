"""The states of jobs, asked of the server: `queries.Progress.state` says the same of one job that has been read."""

from collections import Counter

from django.db import connection
from django.db.models import Exists, OuterRef, Q, QuerySet

from telemetry.models import IngestBatch, IngestJob

JOB_STATES = ("queued", "running", "parked", "cancelled", "done")

State = IngestBatch.State


def jobs_in_state(state: str, jobs: QuerySet[IngestJob]) -> QuerySet[IngestJob]:
    """Return those of the jobs that are in one of JOB_STATES."""
    batches = IngestBatch.objects.filter(job=OuterRef("pk"))
    queued, parked, cancelled = (
        Q(Exists(batches.filter(state=each))) for each in (State.QUEUED, State.PARKED, State.CANCELLED)
    )
    over = Q(Exists(batches.exclude(state=State.QUEUED)))
    conditions = {
        "queued": queued & ~over,
        "running": queued & over,
        "parked": ~queued & parked,
        "cancelled": ~queued & ~parked & cancelled,
        "done": ~queued & ~parked & ~cancelled,
    }
    return jobs.filter(conditions[state])


def count_jobs_by_state() -> dict[str, int]:
    """Return how many jobs each state has, those without any left out, in one pass over the ledger."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT state, count(*) FROM (
                SELECT CASE WHEN bool_or(batch.state = 'queued')
                            THEN CASE WHEN bool_or(batch.state <> 'queued') THEN 'running' ELSE 'queued' END
                            WHEN bool_or(batch.state = 'parked') THEN 'parked'
                            WHEN bool_or(batch.state = 'cancelled') THEN 'cancelled'
                            ELSE 'done' END AS state
                FROM ingest_job job LEFT JOIN ingest_batch batch ON batch.job_id = job.id
                GROUP BY job.id
            ) job
            GROUP BY state
            """
        )
        counts = Counter(dict(cursor.fetchall()))
    return {state: counts[state] for state in JOB_STATES if counts[state]}
