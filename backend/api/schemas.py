"""What goes in and out, as the OpenAPI document tells it."""

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
        raise ValueError("a NUL is no character that can be kept")
    return text


Text = Annotated[str, AfterValidator(_text)]


class Parameters(Schema):
    """How the body is to be read, and what becomes of its readings."""

    time: Text = Field(description="column of the time: ISO 8601 with a zone, unless said otherwise")
    labels: list[Text] = Field([], description="columns that tell one source from another")
    values: list[Text] = Field(min_length=1, description="columns of numbers; each becomes a metric")
    # The page at /api/docs would send the default without its empty text, were it told of it.
    empty: list[Text] = Field(
        default_factory=lambda: list(EMPTY_CELLS),
        description=f"texts of an empty cell; by default {', '.join(map(repr, EMPTY_CELLS))}",
    )
    keep_nan: bool = Field(False, description="whether NaN and infinity are values; otherwise they are empty cells")
    timezone: Annotated[str, AfterValidator(arguments.timezone)] | None = Field(
        None, description="of times without a zone, as Europe/Berlin"
    )
    time_unit: Literal["iso", "s", "ms", "us", "ns"] = Field(
        "iso", description="times are whole numbers of it since 1970"
    )
    delimiter: Annotated[str, AfterValidator(arguments.one_character)] = Field(",", description="of a CSV")
    decimal: Literal[".", ","] = Field(".", description="mark in the numbers of a CSV")
    escape: Annotated[str, AfterValidator(arguments.escape_character)] | None = Field(
        None, description="character of a CSV that makes the next one stand for itself, as \\ before a quote"
    )
    encoding: Annotated[str, AfterValidator(arguments.ascii_encoding)] | None = Field(
        None, description="of a CSV; by default the charset of its Content-Type, or UTF-8"
    )
    on_conflict: IngestJob.OnConflict = Field(
        IngestJob.OnConflict.IGNORE,
        description="what happens to readings that are there already; the body's order holds within a batch",
    )
    max_rejects: Limit | None = Field(
        None, description="when more rows than that, or than that share, cannot be read, the job is parked"
    )
    batch_rows: int = Field(
        default_factory=lambda: int(settings.INGEST_BATCH_ROWS), ge=1, le=BATCH_ROWS_MAX, description="rows in a batch"
    )
    name: Text = Field("upload", min_length=1, max_length=255, description="what errors and rejects call the body")

    def columns(self, charset: str | None) -> Columns:
        """Return how the body is to be read.

        Args:
            charset: of its Content-Type; None if that names none.

        Raises:
            ValueError: the parameters contradict each other.
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
    """How far a job is, as `ingest_status --json` has it. Rows are the input's; the next five count value cells."""

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
    """A batch that is not tried again until `retry_ingest`."""

    id: int
    path: str
    slice: dict[str, Any]
    error: str


class Retry(Schema):
    """Why batches wait for another attempt."""

    error: str
    batches: int
    attempts: int = Field(description="failures that count; interruptions do not")
    failing_since: datetime | None = Field(description="since when they have been interrupted")
    next_attempt_at: datetime


class RejectCount(Schema):
    """How many rows could not be read for a reason."""

    reason: str
    column: str
    rows: int


class JobDetails(Job):
    """A job, and what went wrong in it."""

    warnings: list[str] = Field(description="what the sender should know though the job can be loaded")
    parked_batches: list[ParkedBatch] = Field(
        description=f"the first {PARKED_BATCHES_MAX}; `parked` counts all of them"
    )
    retries: list[Retry]
    rejects: list[RejectCount]


class PageOfJobs(Schema):
    """Which jobs to list."""

    limit: int = Field(100, ge=1, le=1000, description="jobs on a page")
    before: int | None = Field(None, ge=1, le=2**63 - 1, description="only jobs with a smaller number")


class Jobs(Schema):
    """A page of jobs, the newest first."""

    jobs: list[Job]
    next: str | None = Field(description="where the older ones are")
