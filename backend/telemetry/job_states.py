"""The states of jobs, computed in SQL by the same rules as `queries.Progress.state`."""

from collections import Counter

from django.db import connection
from django.db.models import Exists, OuterRef, Q, QuerySet

from telemetry.models import IngestBatch, IngestJob

JOB_STATES = ("queued", "running", "parked", "cancelled", "done")

State = IngestBatch.State


def jobs_in_state(state: str, jobs: QuerySet[IngestJob]) -> QuerySet[IngestJob]:
    """Return the jobs in a state, one of JOB_STATES."""
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
    """Return the number of jobs by state, without states that have none, from one query."""
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
