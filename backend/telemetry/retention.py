"""How long files stay in the spool.

An input is kept until its job has been done for INGEST_INPUT_GRACE_S, a file of rejected rows for INGEST_REJECTS_KEEP_S
or until its job is deleted.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice

from django.conf import settings
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from telemetry import rejects, spool
from telemetry.models import IngestBatch, IngestFile, IngestJob
from telemetry.spool import Entry

ENTRIES_PER_QUERY = 1000


def removable(older_than: timedelta, *, parked_and_cancelled: bool = False) -> Iterator[Entry]:
    """Yield the files that may be removed from the spool: inputs of finished jobs, old rejects, and files of no job.

    The input of a finished job is kept for INGEST_INPUT_GRACE_S, because after a failover to a lagging replica the
    ledger may have its batches as queued again.

    Args:
        older_than: the minimum age of files of no job; a younger one may belong to an upload in progress.
        parked_and_cancelled: also yield inputs of jobs that ended with such batches, which cannot be retried then.

    Raises:
        StorageUnavailableError: the spool is not mounted, or cannot be listed at present.
    """
    spool.require_present()
    now = timezone.now()
    done_before = now - timedelta(seconds=settings.INGEST_INPUT_GRACE_S)
    for entries in _batched(spool.entries(spool.FILES)):
        # The files are listed before the ledger is queried, so that a job that is recorded meanwhile keeps its input.
        recorded, needed = _recorded_and_needed(entries, done_before, parked_and_cancelled=parked_and_cancelled)
        for entry in entries:
            is_old = entry.location in recorded or entry.changed_at < now - older_than
            if is_old and entry.location not in needed:
                yield entry
    for entries in _batched(spool.entries(rejects.FOLDER)):
        job_ids = {entry.location: rejects.job_of(entry.location) for entry in entries}
        recorded_jobs = set(
            IngestJob.objects.filter(pk__in=[pk for pk in job_ids.values() if pk is not None]).values_list(
                "pk", flat=True
            )
        )
        for entry in entries:
            is_orphan = entry.changed_at < now - older_than and job_ids[entry.location] not in recorded_jobs
            if is_orphan or entry.changed_at < rejects.expired_before():
                yield entry


def _batched(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    return iter(lambda: list(islice(entries, ENTRIES_PER_QUERY)), [])


def clean(older_than: timedelta, *, parked_and_cancelled: bool = False) -> Iterator[Entry]:
    """Remove the files that `removable` yields, and yield each after its removal.

    Raises:
        OSError: the spool cannot be used.
    """
    for entry in removable(older_than, parked_and_cancelled=parked_and_cancelled):
        spool.discard(entry.location)
        yield entry


def _recorded_and_needed(
    entries: list[Entry], done_before: datetime, *, parked_and_cancelled: bool
) -> tuple[set[str], set[str]]:
    """Return the locations of the files that are inputs of jobs, and of those that their jobs still need."""
    state = IngestBatch.State
    over = (state.DONE, state.PARKED, state.CANCELLED) if parked_and_cancelled else (state.DONE,)
    pending = IngestBatch.objects.filter(~Q(state__in=over) | Q(finished_at__gte=done_before), job=OuterRef("job"))
    files = IngestFile.objects.filter(location__in=[entry.location for entry in entries])
    found = list(files.annotate(is_needed=Exists(pending)).values_list("location", "is_needed"))
    return {location for location, _ in found}, {location for location, is_needed in found if is_needed}
