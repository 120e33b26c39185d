"""`manage.py retry_ingest`: give a job's parked and cancelled batches another try."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from telemetry.intake import retry_job
from telemetry.queries import job_progress


class Command(BaseCommand):
    """Enqueue again what was given up."""

    help = "Enqueue a job's parked and cancelled batches again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the argument."""
        parser.add_argument("job", type=int, metavar="JOB")

    def handle(self, *args: Any, **options: Any) -> None:
        """Enqueue, and say how many."""
        job_id: int = options["job"]
        if job_progress(job_id) is None:
            raise CommandError(f"there is no job {job_id}", returncode=2)
        self.stdout.write(f"job {job_id}: {retry_job(job_id)} batches enqueued again")
