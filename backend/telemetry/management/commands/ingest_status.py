"""`manage.py ingest_status`: how far jobs are."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.table import Table

from poolhouse.console import console_for, table
from telemetry.models import IngestBatch, IngestReject
from telemetry.queries import Progress, all_progress, job_progress
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
        if (progress := job_progress(options["job"])) is None:
            raise CommandError(f"there is no job {options['job']}", returncode=2)
        if options["json"]:
            self._print_json({**_as_data(progress), "failures": _failures(progress), "rejects": _rejects(progress)})
        else:
            _print_job(progress, console)

    def _print_json(self, data: object) -> None:
        self.stdout.write(json.dumps(data, indent=2, default=str))


def _as_data(progress: Progress) -> dict[str, Any]:
    return {"state": progress.state, **asdict(progress), "elapsed_s": progress.elapsed_s}


def _failures(progress: Progress) -> list[dict[str, Any]]:
    failed = IngestBatch.objects.filter(job_id=progress.job_id, state=IngestBatch.State.FAILED)
    return [dict(batch) for batch in failed.order_by("pk").values("id", "path", "slice", "error")]


def _rejects(progress: Progress) -> list[dict[str, Any]]:
    rejects = IngestReject.objects.filter(batch__job_id=progress.job_id).order_by("batch__path", "line")
    return [dict(reject) for reject in rejects.values("batch__path", "line", "column_name", "reason", "raw")]


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
    for failure in _failures(progress):
        console.print(f"batch {failure['id']} failed: {failure['error']}", markup=False)
    rejects = _rejects(progress)
    for reject in rejects[:REJECTS_SHOWN]:
        where = f"{reject['batch__path']}:{reject['line']}"
        column = f" column {reject['column_name']!r}" if reject["column_name"] else ""
        console.print(f"{where}:{column} {reject['reason']}", markup=False, soft_wrap=True)
    if len(rejects) > REJECTS_SHOWN:
        console.print(f"… and {len(rejects) - REJECTS_SHOWN:,} more; --json has all of them with their raw text")
