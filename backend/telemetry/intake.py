"""From files to batches: check everything, record the job and its batches at once, then announce it to the worker."""

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


class BrokerAwayError(Exception):
    """A job is recorded, but the broker cannot be reached; beat announces the job when the broker is back."""

    def __init__(self, job_id: int, reason: BrokerError) -> None:
        text = (
            f"the broker cannot be reached: {str(reason).rstrip('.')}. Job {job_id} is recorded; beat enqueues it later"
        )
        super().__init__(text)


@dataclass(frozen=True)
class RejectLimit:
    """How many rows of a job may be rejected: so many, or so many of a hundred."""

    count: int = 0
    percent: float | None = None

    @classmethod
    def of(cls, text: str) -> "RejectLimit":
        """Read a limit: 100, or 2.5%.

        Raises:
            ValueError: it is neither.
        """
        if re.fullmatch(r"\d{1,18}", text):
            return cls(count=int(text))
        if (match := re.fullmatch(r"(\d+(?:\.\d+)?)%", text)) and float(match[1]) <= 100:
            return cls(percent=float(match[1]))
        raise ValueError(f"expected a number of rows, such as 100, or a share of them, such as 2.5%; got {text!r}")

    def rows(self, row_count: int) -> int:
        """Say how many that is of a job's rows."""
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
    """Record a job, its files and its batches; `announce` it when that is committed.

    Args:
        files: of one format.
        columns: which columns make readings.
        batch_rows: input rows in a batch.
        on_conflict: ignore, update or error: what happens to readings that are there already.
        reject_limit: how many rows may be rejected before the rest of the job is parked; None: all.
        max_batches: of each file; one that makes more is refused.
        also: what else is to be recorded in the same transaction.

    Raises:
        BadInput: a file cannot be loaded. Then nothing is recorded.
        StorageUnavailableError: a file cannot be reached at present. Then nothing is recorded, either.
        django.db.DatabaseError: `files.may_be_recorded` tells whether the job may have been recorded all the same.

    """
    _require_one_format(files)
    # Before the transaction, since it may take its time.
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
    """Return True if a job has batches that were never sent, so that it is to be announced."""
    return IngestJob.objects.filter(pk=job_id, unsent_since__isnull=False).exists()


def announce(job_id: int) -> None:
    """Announce a committed job to the worker: one message, however many batches there are.

    Raises:
        BrokerAwayError: beat announces the job later.
    """
    try:
        send_job(job_id)
    except BrokerError as error:
        raise BrokerAwayError(job_id, error) from error


def _require_one_format(files: Sequence[InputFile]) -> None:
    first, *others = files
    for file in others:
        if file.format is not first.format:
            problem = f"a job has one format, and {first.name} made this one's {first.format.name}"
            raise BadInput(file.name, problem)


def _cut(file: InputFile, columns: Columns, batch_rows: int, max_batches: int) -> tuple[Stamp, list[Slice]]:
    """Check and cut a file; a change to it meanwhile shows when the first batch is loaded."""
    source = spool.source_of(file.location, file.name)
    stamp = source.stamp()
    with source.judging_errors():
        file.format.check(source, columns)
        slices = list(islice(file.format.cut(source, batch_rows, columns), max_batches + 1))
    if len(slices) > max_batches:
        raise BadInput(source, f"it makes more than {max_batches:,} batches of {batch_rows:,} rows; make them larger")
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
    """Say how a job's files are to be read."""
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
    """Queue a job's parked and cancelled batches again, with a full number of attempts; `announce` the job afterwards.

    Args:
        job_id: the job.
        reject_limit: how many rows may be rejected from now on; None: as before.

    Returns:
        How many batches that are.
    """
    if reject_limit is not None:
        row_count = IngestBatch.objects.filter(job_id=job_id).aggregate(rows=Sum("row_count"))["rows"] or 0
        IngestJob.objects.filter(pk=job_id).update(max_rejected_count=reject_limit.rows(row_count))
    state = IngestBatch.State
    return ledger.queue_again(IngestBatch.objects.filter(job_id=job_id, state__in=(state.PARKED, state.CANCELLED)))


def adopt_input(job_id: int, inputs: Inputs) -> bool:
    """Let a job whose only input has been lost from the spool use the same bytes in another file.

    What was parked meanwhile is queued again; `announce` the job if this returns True.

    Args:
        job_id: the job.
        inputs: one file, whose bytes are those of the job's input.

    Returns:
        True if the job needed the file. Otherwise the file is not referred to.

    Raises:
        StorageUnavailableError: the spool cannot be asked whether the job's input is there.
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
