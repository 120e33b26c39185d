"""The base class of commands that act on one job."""

from abc import ABC, abstractmethod
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from poolhouse.display.reasons import ReasonCommand
from telemetry.queries import job_progress


class JobCommand(ReasonCommand, ABC):
    """A command whose argument is the id of an existing job."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the job's id."""
        parser.add_argument("job", type=int, metavar="JOB", help="id of the job")

    def handle(self, *args: Any, **options: Any) -> None:
        """Act on the job, and print the result."""
        job_id: int = options["job"]
        if job_progress(job_id) is None:
            raise CommandError(f"job {job_id} does not exist; manage.py ingest_status lists the jobs", returncode=2)
        self.stdout.write(f"job {job_id}: {self.act(job_id, options)}")

    @abstractmethod
    def act(self, job_id: int, options: dict[str, Any]) -> str:
        """Act on the job, and return a text that says what was done."""
