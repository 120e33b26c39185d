"""`manage.py ingest_status`: the progress and errors of jobs."""

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from itertools import islice
from textwrap import indent
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db.models import QuerySet
from rich.console import Console

from poolhouse.arguments import whole_number
from poolhouse.display.console import console_for
from poolhouse.display.reasons import ReasonCommand
from poolhouse.display.table import Table
from telemetry import rejects
from telemetry.job_states import JOB_STATES, count_jobs_by_state, jobs_in_state
from telemetry.models import IngestJob
from telemetry.queries import (
    Progress,
    job_document,
    job_progress,
    job_warnings,
    parked_batches,
    pending_retries,
    progress_document,
    progress_of,
    reject_counts,
)
from telemetry.watch import summarise

JOBS_SHOWN = 20
PROBLEMS_SHOWN = 20
PAGE_JOBS = 500
"""number of jobs whose batches one query reads"""


class Command(ReasonCommand):
    """Print a table of the newest jobs, or one job with its errors."""

    help = "Show the newest ingest jobs, or one of them with its parked batches and rejected rows."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the job's id and the options."""
        parser.add_argument("job", nargs="?", type=int, metavar="JOB", help="id of a job (default: list jobs)")
        parser.add_argument("--rejects", action="store_true", help="list the job's rejected rows")
        parser.add_argument("--state", choices=JOB_STATES, help="list only jobs in this state")
        parser.add_argument(
            "--limit",
            type=whole_number(1, 1_000_000),
            metavar="N",
            help=f"list at most N jobs (default: {JOBS_SHOWN}; with --json: all)",
        )
        parser.add_argument(
            "--before", type=whole_number(1, 2**63 - 1), metavar="JOB", help="list only jobs with an id below this"
        )
        parser.add_argument(
            "--json", action="store_true", help="print JSON with all parked batches; with --rejects, NDJSON"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print one job, or the list of jobs."""
        console = console_for(self.stdout, no_color=options["no_color"])
        self._check_combination(options)
        if options["job"] is None:
            every = IngestJob.objects.all()
            jobs = _jobs(jobs_in_state(options["state"], every) if options["state"] else every, options["before"])
            if options["json"]:
                self._stream_json(islice(jobs, options["limit"]))
            else:
                self._print_jobs(jobs, options, console)
            return
        job_id: int = options["job"]
        if (progress := job_progress(job_id)) is None:
            raise CommandError(f"job {job_id} does not exist; manage.py ingest_status lists the jobs", returncode=2)
        if options["rejects"]:
            self._list_rejects(job_id, as_json=options["json"])
        elif options["json"]:
            self._print_json(job_document(progress))
        else:
            _print_job(progress, console)

    def _check_combination(self, options: dict[str, Any]) -> None:
        if options["job"] is None:
            if options["rejects"]:
                raise CommandError("--rejects requires the id of a job", returncode=2)
        elif given := [f"--{name}" for name in ("state", "limit", "before") if options[name] is not None]:
            raise CommandError(f"{', '.join(given)} cannot be combined with the id of a job", returncode=2)

    def _stream_json(self, jobs: Iterator[Progress]) -> None:
        """Print a JSON array job by job, since all jobs may not fit into memory."""
        separator = "["
        for job in jobs:
            document = json.dumps(progress_document(job), indent=2, default=str)
            self.stdout.write(f"{separator}\n{indent(document, '  ')}", ending="")
            separator = ","
        self.stdout.write("[]" if separator == "[" else "\n]")

    def _print_jobs(self, jobs: Iterator[Progress], options: dict[str, Any], console: Console) -> None:
        if not (counts := count_jobs_by_state()):
            console.print("There are no jobs. manage.py enqueue_ingest enqueues one.")
            return
        console.print(", ".join(f"{count:,} {state}" for state, count in counts.items()))
        shown = list(islice(jobs, options["limit"] or JOBS_SHOWN))
        if not shown:
            console.print("No job matches --state, --before and --limit.")
            return
        console.print(_job_table(shown))
        if next(jobs, None) is not None:
            state = f" --state {options['state']}" if options["state"] else ""
            console.print(f"older jobs: manage.py ingest_status{state} --before {shown[-1].job_id}", soft_wrap=True)

    def _list_rejects(self, job_id: int, *, as_json: bool) -> None:
        try:
            for reject in rejects.read(job_id):
                self.stdout.write(json.dumps(reject, ensure_ascii=False) if as_json else _reject_line(reject))
        except OSError as error:
            raise CommandError(f"cannot read the rejected rows from the spool: {error}", returncode=1) from None

    def _print_json(self, data: object) -> None:
        self.stdout.write(json.dumps(data, indent=2, default=str))


def _jobs(jobs: QuerySet[IngestJob], before: int | None) -> Iterator[Progress]:
    """Yield the progress of jobs, newest first, with a query per page."""
    while True:
        page = jobs if before is None else jobs.filter(pk__lt=before)
        numbers = list(page.order_by("-pk").values_list("pk", flat=True)[:PAGE_JOBS])
        yield from progress_of(numbers)
        if len(numbers) < PAGE_JOBS:
            return
        before = numbers[-1]


def _job_table(jobs: list[Progress]) -> Table:
    made = Table("job#", "state", "enqueued", "batches#", "rows#", "inserted#", "skipped#", "rejected#")
    for job in jobs:
        made.add_row(
            str(job.job_id),
            job.state,
            f"{job.created_at:%Y-%m-%d %H:%M:%S}",
            f"{job.done + job.parked + job.cancelled}/{job.batches}",
            *(f"{count:,}" for count in (job.rows, job.inserted, job.skipped, job.rejected)),
        )
    return made


def _print_job(progress: Progress, console: Console) -> None:
    console.print(summarise(progress) if progress.is_over else _job_table([progress]))
    for warning in job_warnings(progress.job_id):
        console.print(f"WARNING: {warning}")
    for parked in parked_batches(progress.job_id, limit=PROBLEMS_SHOWN):
        console.print(f"batch {parked['id']} parked: {parked['error']}")
    _print_rest(progress.parked, "parked batches", progress.job_id, console)
    for retry in pending_retries(progress.job_id):
        console.print(_retry_line(retry))
    counts = reject_counts(progress.job_id)
    for count in counts[:PROBLEMS_SHOWN]:
        column = f" in column {count['column']!r}" if count["column"] else ""
        console.print(f"{count['rows']:,} rejected: {count['reason']}{column}")
    _print_rest(len(counts), "reasons of rejected rows", progress.job_id, console)
    if counts:
        console.print(
            f"manage.py ingest_status {progress.job_id} --rejects lists the rejected rows; add --json for their text"
        )


def _print_rest(count: int, what: str, job_id: int, console: Console) -> None:
    if count > PROBLEMS_SHOWN:
        rest = f"{count - PROBLEMS_SHOWN:,} more {what}: manage.py ingest_status {job_id} --json lists all {count:,}"
        console.print(rest, soft_wrap=True)


def _retry_line(retry: dict[str, Any]) -> str:
    batches = "1 batch waits" if retry["batches"] == 1 else f"{retry['batches']:,} batches wait"
    since = f"interrupted since {retry['failing_since']:%Y-%m-%d %H:%M:%S} UTC, " if retry["failing_since"] else ""
    return (
        f"{batches} for the next attempt at {retry['next_attempt_at']:%Y-%m-%d %H:%M:%S} UTC ({since}"
        f"{retry['attempts']} of {settings.INGEST_MAX_ATTEMPTS} attempts failed): {retry['error']}"
    )


def _reject_line(reject: dict[str, Any]) -> str:
    if "unlisted_rows" in reject:
        return f"{reject['file']}: {reject['detail']}"
    column = f" column {reject['column']!r}:" if reject["column"] else ""
    return f"{reject['file']}:{reject['line']}:{column} {reject['detail']}"
