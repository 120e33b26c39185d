"""`manage.py cancel_ingest`: do not load what a job has not loaded yet."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from telemetry.intake import cancel_job
from telemetry.queries import job_progress


class Command(BaseCommand):
    """Cancel what is queued; what is loaded stays."""

    help = "Cancel a job's queued batches. What is loaded stays; retry_ingest takes the job up again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the argument."""
        parser.add_argument("job", type=int, metavar="JOB")

    def handle(self, *args: Any, **options: Any) -> None:
        """Cancel, and say how many."""
        job_id: int = options["job"]
        if job_progress(job_id) is None:
            raise CommandError(f"there is no job {job_id}", returncode=2)
        self.stdout.write(f"job {job_id}: {cancel_job(job_id)} batches cancelled")
