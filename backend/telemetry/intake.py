"""Ingest: check and cut files, record a job and its batches in one transaction, then announce it to the worker."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, islice, starmap

from django.db import transaction
from django.db.models import Sum
from django.db.models.functions import Now
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from telemetry import ledger, spool
from telemetry.estimate import chunk_warnings
from telemetry.formats import BadInput, Columns, Slice, Stamp, TextFormat, TimeFormat
from telemetry.inputs import InputFile, Inputs
from telemetry.models import IngestBatch, IngestFile, IngestJob
from telemetry.queue import send_job

EMPTY_CELLS = ("", "NA", "N/A", "null", "NULL")
BATCH_ROWS_MAX = 10_000_000
BATCHES_MAX = 1_000_000


class BrokerUnavailableError(Exception):
    """The broker cannot be reached; the job is recorded, and beat announces it when the broker is available again."""

    def __init__(self, job_id: int, reason: BrokerError) -> None:
        text = (
            f"cannot reach the broker: {str(reason).rstrip('.')}. Job {job_id} is recorded; beat enqueues it when the "
            "broker is available again"
        )
        super().__init__(text)


@dataclass(frozen=True)
class RejectLimit:
    """How many rows of a job may be rejected, as a number or as a percentage."""

    count: int = 0
    percent: float | None = None

    @classmethod
    def of(cls, text: str) -> "RejectLimit":
        """Return a limit such as 100 or 2.5%.

        Raises:
            ValueError: the text is neither a number nor a percentage up to 100.
        """
        if re.fullmatch(r"\d{1,18}", text):
            return cls(count=int(text))
        if (match := re.fullmatch(r"(\d+(?:\.\d+)?)%", text)) and float(match[1]) <= 100:
            return cls(percent=float(match[1]))
        raise ValueError(f"expected a number of rows such as 100, or a percentage such as 2.5%, got {text!r}")

    def rows(self, row_count: int) -> int:
        """Return the limit in rows, for a job of `row_count` rows."""
        return int(row_count * self.percent / 100) if self.percent is not None else self.count


def create_job(  # noqa: PLR0913 - all but two by name
    files: Inputs,
    columns: Columns,
    *,
    batch_rows: int,
    on_conflict: str = IngestJob.OnConflict.IGNORE,
    reject_limit: RejectLimit | None = None,
    max_batches: int = BATCHES_MAX,
    also: Callable[[IngestJob], None] = lambda job: None,
) -> IngestJob:
    """Record a job, its files and its batches. Call `announce` after the commit.

    Args:
        files: the files, all of one format.
        columns: the columns that make readings.
        batch_rows: input rows per batch.
        on_conflict: what to do with readings that exist already: ignore, update or error.
        reject_limit: how many rows may be rejected before the rest of the job is parked; None for any number.
        max_batches: limit of the batches per file; a file with more is refused.
        also: called with the job in the same transaction, to record more.

    Raises:
        BadInput: a file cannot be loaded. Nothing is recorded.
        StorageUnavailableError: a file cannot be reached at present. Nothing is recorded.
        django.db.DatabaseError: if `files.may_be_recorded` is set, the job may have been recorded anyway.

    """
    _require_one_format(files)
    # Outside the transaction, since it may take long.
    cut = [_cut(file, columns, batch_rows, max_batches) for file in files]
    row_count = sum(part.row_count for _, slices in cut for part in slices)
    warnings = _warnings(files, cut, columns)
    with transaction.atomic():
        job = IngestJob.objects.create(
            format=files[0].format.name,
            time_column=columns.time,
            label_columns=list(columns.labels),
            value_columns=list(columns.values),
            null_values=list(columns.null_values),
            options={"times": asdict(columns.times), "text": asdict(columns.text), "keep_nan": columns.keep_nan},
            on_conflict=on_conflict,
            max_rejected_count=reject_limit.rows(row_count) if reject_limit else None,
            warnings=warnings,
            created_at=timezone.now(),
            unsent_since=Now(),
        )
        batches = chain.from_iterable(starmap(partial(_record_file, job), zip(files, cut, strict=True)))
        IngestBatch.objects.bulk_create(batches, batch_size=1000)
        also(job)
        files.may_be_recorded = True
    return job


def has_unsent_batches(job_id: int) -> bool:
    """Return True if a job has batches that were never sent, so that it has to be announced."""
    return IngestJob.objects.filter(pk=job_id, unsent_since__isnull=False).exists()


def announce(job_id: int) -> None:
    """Announce a committed job to the worker, with one message for all batches.

    Raises:
        BrokerUnavailableError: the broker cannot be reached; beat announces the job later.
    """
    try:
        send_job(job_id)
    except BrokerError as error:
        raise BrokerUnavailableError(job_id, error) from error


def _require_one_format(files: Sequence[InputFile]) -> None:
    first, *others = files
    for file in others:
        if file.format is not first.format:
            problem = (
                f"all files of a job must have the same format; this one is {file.format.name}, but {first.name} is "
                f"{first.format.name}"
            )
            raise BadInput(file.name, problem)


def _cut(file: InputFile, columns: Columns, batch_rows: int, max_batches: int) -> tuple[Stamp, list[Slice]]:
    """Check and cut a file; a change to the file meanwhile is detected when its first batch is loaded."""
    source = spool.source_of(file.location, file.name)
    stamp = source.stamp()
    with source.classifying_errors():
        file.format.check(source, columns)
        slices = list(islice(file.format.cut(source, batch_rows, columns), max_batches + 1))
    if len(slices) > max_batches:
        raise BadInput(
            source, f"it makes more than {max_batches:,} batches with batch_rows = {batch_rows:,}; use a larger value"
        )
    return stamp, slices


def _warnings(files: Inputs, cut: Sequence[tuple[Stamp, list[Slice]]], columns: Columns) -> list[str]:
    found = [
        (spool.source_of(file.location, file.name), file.format, slices)
        for file, (_, slices) in zip(files, cut, strict=True)
    ]
    return chunk_warnings(found, columns)


def _record_file(job: IngestJob, file: InputFile, cut: tuple[Stamp, list[Slice]]) -> list[IngestBatch]:
    stamp, slices = cut
    recorded = IngestFile.objects.create(job=job, name=file.name, location=file.location, **asdict(stamp))
    return [
        IngestBatch(
            job=job,
            file=recorded,
            slice=part.place,
            row_count=part.row_count,
            enqueued_at=job.created_at,
            due_at=Now(),
        )
        for part in slices
    ]


def columns_of(job: IngestJob) -> Columns:
    """Return how a job's files are read."""
    return Columns(
        time=job.time_column,
        labels=tuple(job.label_columns),
        values=tuple(job.value_columns),
        null_values=tuple(job.null_values),
        times=TimeFormat(**job.options.get("times", {})),
        text=TextFormat(**job.options.get("text", {})),
        keep_nan=job.options.get("keep_nan", False),
    )


@transaction.atomic
def retry_job(job_id: int, reject_limit: RejectLimit | None = None) -> int:
    """Queue a job's parked and cancelled batches again, with no attempts counted. Call `announce` afterwards.

    Args:
        job_id: the job.
        reject_limit: how many rows may be rejected from now on; None to keep the limit.

    Returns:
        The number of batches that were queued.
    """
    if reject_limit is not None:
        row_count = IngestBatch.objects.filter(job_id=job_id).aggregate(rows=Sum("row_count"))["rows"] or 0
        IngestJob.objects.filter(pk=job_id).update(max_rejected_count=reject_limit.rows(row_count))
    state = IngestBatch.State
    return ledger.queue_again(IngestBatch.objects.filter(job_id=job_id, state__in=(state.PARKED, state.CANCELLED)))


def adopt_input(job_id: int, inputs: Inputs) -> bool:
    """Replace the only input of a job, if it was lost from the spool, with another file of the same bytes.

    Batches that were parked meanwhile are queued again. Call `announce` if this returns True.

    Args:
        job_id: the job.
        inputs: one file with the same bytes as the job's input.

    Returns:
        True if the job uses the file now.

    Raises:
        StorageUnavailableError: the spool cannot be searched for the job's input at present.
    """
    (new,) = inputs
    with transaction.atomic():
        recorded = IngestFile.objects.select_for_update().get(job_id=job_id)
        unfinished = IngestBatch.objects.filter(job_id=job_id).exclude(state=IngestBatch.State.DONE)
        if spool.exists(recorded.location) or not unfinished.exists():
            return False
        stamp = spool.source_of(new.location, new.name).stamp()
        IngestFile.objects.filter(pk=recorded.pk).update(location=new.location, **asdict(stamp))
        ledger.queue_again(unfinished.filter(state=IngestBatch.State.PARKED))
        inputs.may_be_recorded = True
    return True
