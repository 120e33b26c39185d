"""The parameters and answers of the API, as the OpenAPI document describes them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from django.conf import settings
from ninja import Field, Schema
from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from telemetry import arguments
from telemetry.formats import Columns, TextFormat, TimeFormat
from telemetry.intake import BATCH_ROWS_MAX, EMPTY_CELLS, RejectLimit
from telemetry.models import IngestJob

PARKED_BATCHES_MAX = 100

Limit = Annotated[
    RejectLimit, BeforeValidator(RejectLimit.of), WithJsonSchema({"type": "string", "examples": ["100", "2.5%"]})
]


def _text(text: str) -> str:
    if "\0" in text:
        raise ValueError("NUL characters are not allowed")
    return text


Text = Annotated[str, AfterValidator(_text)]


class Parameters(Schema):
    """How the body is read, and how its readings are loaded."""

    time: Text = Field(
        description="column with the time: ISO 8601 with a time zone, unless timezone or time_unit is set"
    )
    labels: list[Text] = Field([], description="columns that identify a series, for example host and region")
    values: list[Text] = Field(min_length=1, description="columns of numbers; each becomes a metric")
    # The page at /api/docs would send a declared default without its empty text.
    empty: list[Text] = Field(
        default_factory=lambda: list(EMPTY_CELLS),
        description=f"texts that mean an empty cell (default: {', '.join(map(repr, EMPTY_CELLS))})",
    )
    keep_nan: bool = Field(False, description="load NaN and infinity as values (default: they are empty cells)")
    timezone: Annotated[str, AfterValidator(arguments.timezone)] | None = Field(
        None, description="time zone of times that have none, for example Europe/Berlin"
    )
    time_unit: Literal["iso", "s", "ms", "us", "ns"] = Field(
        "iso", description="iso: times are ISO 8601 texts; otherwise they are integers, in this unit since 1970"
    )
    delimiter: Annotated[str, AfterValidator(arguments.one_character)] = Field(
        ",", description="delimiter between the cells of a CSV"
    )
    decimal: Literal[".", ","] = Field(".", description="decimal mark in the numbers of a CSV")
    escape: Annotated[str, AfterValidator(arguments.escape_character)] | None = Field(
        None, description="escape character of a CSV, for example \\ before a quote"
    )
    encoding: Annotated[str, AfterValidator(arguments.ascii_encoding)] | None = Field(
        None, description="encoding of a CSV (default: the charset of its Content-Type, or UTF-8)"
    )
    on_conflict: IngestJob.OnConflict = Field(
        IngestJob.OnConflict.IGNORE,
        description="what to do with readings that exist already; of several in one batch, the first counts for "
        "ignore and the last for update",
    )
    max_rejects: Limit | None = Field(
        None, description="park the job if more than this number, or percentage, of its rows cannot be read"
    )
    batch_rows: int = Field(
        default_factory=lambda: int(settings.INGEST_BATCH_ROWS), ge=1, le=BATCH_ROWS_MAX, description="rows per batch"
    )
    name: Text = Field("upload", min_length=1, max_length=255, description="name of the body in errors and rejects")

    def columns(self, charset: str | None) -> Columns:
        """Return how the body is read.

        Args:
            charset: the charset of its Content-Type, or None.

        Raises:
            ValueError: two parameters contradict each other.
        """
        return Columns(
            self.time,
            tuple(self.labels),
            tuple(self.values),
            tuple(self.empty),
            TimeFormat(self.time_unit, self.timezone or ""),
            TextFormat(self.delimiter, self.decimal, self.encoding or charset or "utf-8", self.escape or ""),
            self.keep_nan,
        )


class Job(Schema):
    """A job's progress, as in `ingest_status --json`.

    `rows`, `rows_done` and `rejected` count rows of the input, `inserted` to `empty` count value cells.
    """

    url: str
    rejects_url: str
    job_id: int
    state: Literal["queued", "running", "done", "parked", "cancelled"]
    created_at: datetime
    finished_at: datetime | None
    elapsed_s: float | None
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


class ParkedBatch(Schema):
    """A batch that was given up until `retry_ingest`."""

    id: int
    path: str
    slice: dict[str, Any]
    error: str


class Retry(Schema):
    """Batches that wait for another attempt after the same error."""

    error: str
    batches: int
    attempts: int = Field(description="failed attempts so far; interrupted attempts do not count")
    failing_since: datetime | None = Field(description="time of the first of the current interruptions")
    next_attempt_at: datetime


class RejectCount(Schema):
    """The number of rows that were rejected for one reason in one column."""

    reason: str
    column: str
    rows: int


class JobDetails(Job):
    """A job's progress, its warnings and its errors."""

    warnings: list[str] = Field(description="problems that do not prevent the job from being loaded")
    parked_batches: list[ParkedBatch] = Field(
        description=f"the first {PARKED_BATCHES_MAX} parked batches; `parked` is the number of all"
    )
    retries: list[Retry]
    rejects: list[RejectCount]


class PageOfJobs(Schema):
    """The page of jobs to list."""

    limit: int = Field(100, ge=1, le=1000, description="jobs per page")
    before: int | None = Field(None, ge=1, le=2**63 - 1, description="list only jobs with an id below this")


class Jobs(Schema):
    """A page of jobs, newest first."""

    jobs: list[Job]
    next: str | None = Field(description="address of the page with older jobs; null if this page is not full")
