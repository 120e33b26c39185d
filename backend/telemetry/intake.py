"""From files to batches: check everything, record the job and its batches at once, then tell the queue."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, islice, starmap
from urllib.parse import urlsplit

from django.db import transaction
from django.db.models import QuerySet, Sum
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from telemetry import formats, spool
from telemetry.estimate import chunk_warnings
from telemetry.formats import BadInput, Columns, Format, Slice, Stamp, TextFormat, TimeFormat
from telemetry.models import IngestBatch, IngestFile, IngestJob, IngestRejectCount
from telemetry.queue import send_batches

EMPTY_CELLS = ("", "NA", "N/A", "null", "NULL")
BATCH_ROWS_MAX = 10_000_000
BATCHES_MAX = 1_000_000


@dataclass(frozen=True)
class InputFile:
    """A file that is to be loaded."""

    name: str
    """as its sender knows it"""
    location: str
    """where workers read it: a path, a URL, or a name in the spool"""
    format: Format


class BrokerAwayError(Exception):
    """The queue could not be told of a job that is recorded; beat does so when the broker is back."""

    def __init__(self, job: IngestJob, reason: BrokerError) -> None:
        super().__init__(f"the broker cannot be reached: {reason}. Job {job.pk} is recorded; beat enqueues it later")
        self.job = job


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
        raise ValueError(f"{text!r} is no limit; allowed: a number of rows, as 100, or a share of them, as 2.5%")

    def rows(self, row_count: int) -> int:
        """Say how many that is of a job's rows."""
        return int(row_count * self.percent / 100) if self.percent is not None else self.count


def open_input(text: str, *, into_spool: bool = False) -> InputFile:
    """Find a file by its path or URL, and tell by its name how it is written.

    Args:
        text: the path or the URL.
        into_spool: copy it, so that workers need not see where it is. A compressed one is unpacked there anyway.

    Raises:
        BadInput: there is no such file, it may not be read, or its ending is no known format's.
    """
    written = formats.recognise(urlsplit(text).path if "://" in text else text)
    location, source = spool.locate(text)
    source.stamp()
    if into_spool or written.compression:
        location = spool.take_in(source, written.format.endings[0], written.compression)
    return InputFile(source.name, location, written.format)


@contextmanager
def discarding_on_failure(files: Sequence[InputFile]) -> Iterator[None]:
    """If a block fails, remove those of the files that are in the spool; a job that is recorded keeps them."""
    try:
        yield
    except BrokerAwayError:
        raise
    except BaseException:
        for file in files:
            if spool.is_spooled(file.location):
                spool.discard(file.location)
        raise


def create_job(  # noqa: PLR0913 - all but two by name
    files: Sequence[InputFile],
    columns: Columns,
    *,
    batch_rows: int,
    on_conflict: str = IngestJob.OnConflict.IGNORE,
    reject_limit: RejectLimit | None = None,
    max_batches: int = BATCHES_MAX,
    also: Callable[[IngestJob], None] = lambda job: None,
) -> IngestJob:
    """Record a job, its files and its batches, and enqueue the batches' ids after commit.

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
        BrokerAwayError: the job is recorded, but the queue does not know of it yet.

    """
    _require_one_format(files)
    # Before the transaction, since it may take its time.
    cut = [_cut(file, columns, batch_rows, max_batches) for file in files]
    row_count = sum(part.row_count for _, slices in cut for part in slices)
    warnings = chunk_warnings(
        [
            (spool.source_of(file.location, file.name), file.format, slices)
            for file, (_, slices) in zip(files, cut, strict=True)
        ],
        columns,
    )
    try:
        with transaction.atomic():
            job = IngestJob.objects.create(
                format=files[0].format.name,
                time_column=columns.time,
                label_columns=list(columns.labels),
                value_columns=list(columns.values),
                null_values=list(columns.null_values),
                options={"times": asdict(columns.times), "text": asdict(columns.text)},
                on_conflict=on_conflict,
                max_rejected_count=reject_limit.rows(row_count) if reject_limit else None,
                warnings=warnings,
                created_at=timezone.now(),
            )
            batches = chain.from_iterable(starmap(partial(_record_file, job), zip(files, cut, strict=True)))
            created = IngestBatch.objects.bulk_create(batches, batch_size=1000)
            also(job)
            transaction.on_commit(partial(send_batches, [batch.pk for batch in created]))
    except BrokerError as error:
        raise BrokerAwayError(job, error) from error
    return job


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
    file.format.check(source, columns)
    slices = list(islice(file.format.cut(source, batch_rows, columns), max_batches + 1))
    if len(slices) > max_batches:
        raise BadInput(source, f"it makes more than {max_batches:,} batches of {batch_rows:,} rows; make them larger")
    return stamp, slices


def _record_file(job: IngestJob, file: InputFile, cut: tuple[Stamp, list[Slice]]) -> list[IngestBatch]:
    stamp, slices = cut
    recorded = IngestFile.objects.create(job=job, name=file.name, location=file.location, **asdict(stamp))
    return [
        IngestBatch(job=job, file=recorded, slice=part.place, row_count=part.row_count, enqueued_at=job.created_at)
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
    )


@transaction.atomic
def retry_job(job_id: int, reject_limit: RejectLimit | None = None) -> int:
    """Enqueue a job's parked and cancelled batches again, their attempts forgotten; give how many there were.

    Args:
        job_id: the job.
        reject_limit: how many rows may be rejected from now on; None: as before.

    Raises:
        kombu.exceptions.OperationalError: the broker is away; beat sends them.
    """
    if reject_limit is not None:
        row_count = IngestBatch.objects.filter(job_id=job_id).aggregate(rows=Sum("row_count"))["rows"] or 0
        IngestJob.objects.filter(pk=job_id).update(max_rejected_count=reject_limit.rows(row_count))
    state = IngestBatch.State
    given_up = IngestBatch.objects.filter(job_id=job_id, state__in=(state.PARKED, state.CANCELLED))
    batch_ids = list(given_up.select_for_update().order_by("pk").values_list("pk", flat=True))
    IngestRejectCount.objects.filter(batch_id__in=batch_ids).delete()
    IngestBatch.objects.filter(pk__in=batch_ids).update(
        state=state.QUEUED,
        attempts=0,
        chunk_limit=None,
        error="",
        rejected_count=0,
        finished_at=None,
        enqueued_at=timezone.now(),
    )
    IngestJob.objects.filter(pk=job_id).update(cancelled_at=None)
    transaction.on_commit(partial(send_batches, batch_ids))
    return len(batch_ids)


def unclaimed_batches(job_id: int) -> "QuerySet[IngestBatch]":
    """The batches of a job that are queued and that no worker is loading, for which one would have to wait."""
    queued = IngestBatch.objects.filter(job_id=job_id, state=IngestBatch.State.QUEUED)
    return IngestBatch.objects.filter(pk__in=queued.select_for_update(skip_locked=True).values("pk"))
