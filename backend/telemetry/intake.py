"""From files to batches: check everything, record the job and its batches at once, then tell the queue."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from telemetry import formats
from telemetry.formats import BadInput, Columns, Slice, TextFormat, TimeFormat
from telemetry.models import IngestBatch, IngestJob
from telemetry.queue import send_batches


def create_job(
    paths: Sequence[Path], columns: Columns, *, batch_rows: int, on_conflict: str = IngestJob.OnConflict.IGNORE
) -> IngestJob:
    """Record a job and its batches, and enqueue the batches' ids after commit.

    Args:
        paths: files of one format; each is read where the worker runs, so they are recorded as absolute paths.
        columns: which columns make readings.
        batch_rows: input rows in a batch.
        on_conflict: ignore, update or error: what happens to readings that are there already.

    Raises:
        BadInput: a file cannot be loaded. Then nothing is recorded.
        kombu.exceptions.OperationalError: the broker is away. The job is recorded all the same, and beat sends it.

    """
    paths = [_recordable(path) for path in paths]
    format_ = formats.by_path(paths[0])
    for path in paths:
        if formats.by_path(path) is not format_:
            raise BadInput(path, f"a job has one format, and {paths[0].name} made this one's {format_.name}")
        format_.check(path, columns)
    with transaction.atomic():
        now = timezone.now()
        job = IngestJob.objects.create(
            format=format_.name,
            time_column=columns.time,
            label_columns=list(columns.labels),
            value_columns=list(columns.values),
            null_values=list(columns.null_values),
            options={"times": asdict(columns.times), "text": asdict(columns.text)},
            on_conflict=on_conflict,
            created_at=now,
        )
        slices = chain.from_iterable(_batches_of(job, format_.cut(path, batch_rows, columns), path) for path in paths)
        created = IngestBatch.objects.bulk_create(slices, batch_size=1000)
        transaction.on_commit(partial(send_batches, [batch.pk for batch in created]))
    return job


def _recordable(path: Path) -> Path:
    absolute = path.resolve()
    try:
        str(absolute).encode()
    except UnicodeEncodeError:
        raise BadInput(Path(repr(str(path))), "its name is not UTF-8; rename it") from None
    return absolute


def _batches_of(job: IngestJob, slices: Iterator[Slice], path: Path) -> Iterator[IngestBatch]:
    for part in slices:
        yield IngestBatch(
            job=job, path=str(path), slice=part.place, row_count=part.row_count, enqueued_at=job.created_at
        )


def columns_of(job: IngestJob) -> Columns:
    """Say how a job's files are to be read."""
    return Columns(
        time=job.time_column,
        labels=tuple(job.label_columns),
        values=tuple(job.value_columns),
        null_values=tuple(job.null_values),
        times=TimeFormat(**job.options.get("times", {})),
        text=TextFormat(**job.options.get("text", {})),
    )


@transaction.atomic
def retry_job(job_id: int) -> int:
    """Enqueue a job's parked and cancelled batches again, their attempts forgotten; give how many there were.

    Raises:
        kombu.exceptions.OperationalError: the broker is away; beat sends them.
    """
    state = IngestBatch.State
    given_up = IngestBatch.objects.filter(job_id=job_id, state__in=(state.PARKED, state.CANCELLED))
    batch_ids = list(given_up.select_for_update().order_by("pk").values_list("pk", flat=True))
    IngestBatch.objects.filter(pk__in=batch_ids).update(
        state=state.QUEUED, attempts=0, error="", finished_at=None, enqueued_at=timezone.now()
    )
    transaction.on_commit(partial(send_batches, batch_ids))
    return len(batch_ids)


def cancel_job(job_id: int) -> int:
    """Cancel a job's queued batches, and give how many; one that is being loaded is waited for, and stays loaded."""
    queued = IngestBatch.objects.filter(job_id=job_id, state=IngestBatch.State.QUEUED)
    return queued.update(state=IngestBatch.State.CANCELLED, finished_at=timezone.now())
