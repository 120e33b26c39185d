"""`manage.py ingest_status`: how far jobs are."""

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from rich.console import Console

from poolhouse.display.console import console_for
from poolhouse.display.reasons import ReasonCommand
from poolhouse.display.table import Table
from telemetry import rejects
from telemetry.queries import (
    Progress,
    all_progress,
    job_document,
    job_progress,
    job_warnings,
    parked_batches,
    pending_retries,
    progress_document,
    reject_counts,
)
from telemetry.watch import summarise


class Command(ReasonCommand):
    """All jobs in a table, or one job with what went wrong in it."""

    help = "Show the ingest jobs, or one of them with its parked batches and rejected rows."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("job", nargs="?", type=int, metavar="JOB")
        parser.add_argument("--rejects", action="store_true", help="list the job's rows that could not be read")
        parser.add_argument("--json", action="store_true", help="as JSON; the rejects as an object a line")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print one job or all."""
        console = console_for(self.stdout, no_color=options["no_color"])
        if options["job"] is None and options["rejects"]:
            raise CommandError("--rejects needs the number of a job", returncode=2)
        if options["job"] is None:
            jobs = all_progress()
            if options["json"]:
                self._print_json([progress_document(job) for job in jobs])
            else:
                console.print(_job_table(jobs) if jobs else "No job has been enqueued.")
            return
        job_id: int = options["job"]
        if (progress := job_progress(job_id)) is None:
            raise CommandError(f"there is no job {job_id}", returncode=2)
        if options["rejects"]:
            self._list_rejects(job_id, as_json=options["json"])
        elif options["json"]:
            self._print_json(job_document(progress))
        else:
            _print_job(progress, console)

    def _list_rejects(self, job_id: int, *, as_json: bool) -> None:
        try:
            for reject in rejects.read(job_id):
                self.stdout.write(json.dumps(reject, ensure_ascii=False) if as_json else _reject_line(reject))
        except OSError as error:
            raise CommandError(f"the rejects cannot be read from the spool: {error}", returncode=1) from None

    def _print_json(self, data: object) -> None:
        self.stdout.write(json.dumps(data, indent=2, default=str))


def _job_table(jobs: list[Progress]) -> Table:
    made = Table("job#", "state", "enqueued", "batches#", "rows#", "inserted#", "skipped#", "rejected#")
    for job in jobs:
        made.add_row(
            str(job.job_id),
            job.state,
            f"{job.created_at:%Y-%m-%d %H:%M:%S}",
            f"{job.done + job.parked}/{job.batches}",
            *(f"{count:,}" for count in (job.rows, job.inserted, job.skipped, job.rejected)),
        )
    return made


def _print_job(progress: Progress, console: Console) -> None:
    console.print(summarise(progress) if progress.is_over else _job_table([progress]))
    for warning in job_warnings(progress.job_id):
        console.print(f"WARNING: {warning}")
    for parked in parked_batches(progress.job_id):
        console.print(f"batch {parked['id']} parked: {parked['error']}")
    for retry in pending_retries(progress.job_id):
        console.print(_retry_line(retry))
    counts = reject_counts(progress.job_id)
    for count in counts:
        column = f" in column {count['column']!r}" if count["column"] else ""
        console.print(f"{count['rows']:,} rejected: {count['reason']}{column}")
    if counts:
        console.print(f"manage.py ingest_status {progress.job_id} --rejects lists them; with --json also as they stand")


def _retry_line(retry: dict[str, Any]) -> str:
    batches = "1 batch waits" if retry["batches"] == 1 else f"{retry['batches']:,} batches wait"
    since = f", interrupted since {retry['failing_since']:%Y-%m-%d %H:%M:%S}" if retry["failing_since"] else ""
    return (
        f"{batches} for another attempt, the next at {retry['next_attempt_at']:%Y-%m-%d %H:%M:%S} UTC{since}, after "
        f"{retry['attempts']} of {settings.INGEST_MAX_ATTEMPTS} failures: {retry['error']}"
    )


def _reject_line(reject: dict[str, Any]) -> str:
    if "unlisted_rows" in reject:
        return f"{reject['file']}: {reject['detail']}"
    column = f" column {reject['column']!r}:" if reject["column"] else ""
    return f"{reject['file']}:{reject['line']}:{column} {reject['detail']}"
