"""What the commands that act on one job share."""

from abc import ABC, abstractmethod
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from poolhouse.display.reasons import ReasonCommand
from telemetry.queries import job_progress


class JobCommand(ReasonCommand, ABC):
    """A command whose argument is a job that exists."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the argument."""
        parser.add_argument("job", type=int, metavar="JOB")

    def handle(self, *args: Any, **options: Any) -> None:
        """Act on the job, and say what was done."""
        job_id: int = options["job"]
        if job_progress(job_id) is None:
            raise CommandError(f"there is no job {job_id}", returncode=2)
        self.stdout.write(f"job {job_id}: {self.act(job_id, options)}")

    @abstractmethod
    def act(self, job_id: int, options: dict[str, Any]) -> str:
        """Do it, and tell what was done."""
