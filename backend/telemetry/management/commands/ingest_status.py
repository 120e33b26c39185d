"""`manage.py ingest_status`: how far jobs are."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.table import Table

from poolhouse.console import console_for, table
from telemetry.queries import Progress, all_progress, failed_batches, job_progress, rejected_rows
from telemetry.watch import summarise

REJECTS_SHOWN = 20


class Command(BaseCommand):
    """All jobs in a table, or one job with what went wrong in it."""

    help = "Show the ingest jobs, or one of them with its failures and rejected rows."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("job", nargs="?", type=int, metavar="JOB")
        parser.add_argument("--json", action="store_true", help="as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print one job or all."""
        console = console_for(self.stdout, no_color=options["no_color"])
        if options["job"] is None:
            jobs = all_progress()
            if options["json"]:
                self._print_json([_as_data(job) for job in jobs])
            else:
                console.print(_job_table(jobs) if jobs else "No job has been enqueued.")
            return
        job_id: int = options["job"]
        if (progress := job_progress(job_id)) is None:
            raise CommandError(f"there is no job {job_id}", returncode=2)
        if options["json"]:
            self._print_json(
                {**_as_data(progress), "failures": failed_batches(job_id), "rejects": rejected_rows(job_id)}
            )
        else:
            _print_job(progress, console)

    def _print_json(self, data: object) -> None:
        self.stdout.write(json.dumps(data, indent=2, default=str))


def _as_data(progress: Progress) -> dict[str, Any]:
    return {"state": progress.state, **asdict(progress), "elapsed_s": progress.elapsed_s}


def _job_table(jobs: list[Progress]) -> Table:
    made = table("job#", "state", "enqueued", "batches#", "rows#", "inserted#", "skipped#", "rejected#")
    for job in jobs:
        made.add_row(
            str(job.job_id),
            job.state,
            f"{job.created_at:%Y-%m-%d %H:%M:%S}",
            f"{job.done + job.failed}/{job.batches}",
            *(f"{count:,}" for count in (job.rows, job.inserted, job.skipped, job.rejected)),
        )
    return made


def _print_job(progress: Progress, console: Console) -> None:
    console.print(summarise(progress) if progress.is_over else _job_table([progress]))
    for failure in failed_batches(progress.job_id):
        console.print(f"batch {failure['id']} failed: {failure['error']}")
    rejects = rejected_rows(progress.job_id)
    for reject in rejects[:REJECTS_SHOWN]:
        column = f" column {reject['column']!r}:" if reject["column"] else ""
        console.print(f"{reject['path']}:{reject['line']}:{column} {reject['reason']}", soft_wrap=True)
    if len(rejects) > REJECTS_SHOWN:
        console.print(f"… and {len(rejects) - REJECTS_SHOWN:,} more; --json has all of them with their raw text")
