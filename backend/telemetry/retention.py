"""How long files stay in the spool: an input until its job is done, rejects as long as their job is on record."""

import logging
from collections.abc import Iterator
from datetime import timedelta

from django.utils import timezone

from telemetry import rejects, spool
from telemetry.models import IngestBatch, IngestFile, IngestJob
from telemetry.spool import Entry

logger = logging.getLogger(__name__)


def discard_inputs_when_done(job_id: int) -> None:
    """Remove a job's files from the spool once every batch is loaded; what cannot be removed is left to clean_spool."""
    if IngestBatch.objects.filter(job_id=job_id).exclude(state=IngestBatch.State.DONE).exists():
        return
    for location in IngestFile.objects.filter(job_id=job_id).values_list("location", flat=True):
        if spool.is_spooled(location):
            try:
                spool.discard(location)
            except OSError as error:
                logger.warning("%s of job %d stays in the spool: %s", location, job_id, error)


def orphans(older_than: timedelta, *, given_up: bool = False) -> Iterator[Entry]:
    """Find what nobody needs any more: inputs of jobs that are done or that there never were, rejects of deleted jobs.

    Args:
        older_than: younger files are left alone; one may belong to an upload that goes on.
        given_up: also inputs of jobs that have ended with batches parked or cancelled, which cannot be retried then.
    """
    latest = timezone.now() - older_than
    needed = _needed(given_up=given_up)
    jobs = set(IngestJob.objects.values_list("pk", flat=True))
    for entry in spool.entries(spool.FILES):
        if entry.changed_at < latest and entry.location not in needed:
            yield entry
    for entry in spool.entries(rejects.FOLDER):
        if entry.changed_at < latest and rejects.job_of(entry.location) not in jobs:
            yield entry


def clean(older_than: timedelta, *, given_up: bool = False) -> Iterator[Entry]:
    """Remove what `orphans` finds, and yield each file that is gone.

    Raises:
        OSError: the spool cannot be used.
    """
    for entry in orphans(older_than, given_up=given_up):
        spool.discard(entry.location)
        yield entry


def _needed(*, given_up: bool) -> set[str]:
    state = IngestBatch.State
    over = (state.DONE, state.PARKED, state.CANCELLED) if given_up else (state.DONE,)
    unfinished = IngestBatch.objects.exclude(state__in=over)
    files = IngestFile.objects.filter(location__startswith=spool.SCHEME, job_id__in=unfinished.values("job_id"))
    return set(files.values_list("location", flat=True))
