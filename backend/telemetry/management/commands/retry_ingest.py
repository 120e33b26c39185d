"""`manage.py retry_ingest`: give a job's parked and cancelled batches another try."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from telemetry.arguments import argument
from telemetry.intake import BrokerAwayError, RejectLimit, announce, retry_job
from telemetry.management.job_command import JobCommand


class Command(JobCommand):
    """A door to `telemetry.intake.retry_job`."""

    help = "Enqueue a job's parked and cancelled batches again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        super().add_arguments(parser)
        parser.add_argument(
            "--max-rejects",
            type=argument(RejectLimit.of),
            metavar="N|P%",
            help="how many rows, or which share of them, may be rejected from now on (default: as before)",
        )

    def act(self, job_id: int, options: dict[str, Any]) -> str:
        """Queue them, and return how many there were."""
        count = retry_job(job_id, options["max_rejects"])
        try:
            if count:
                announce(job_id)
        except BrokerAwayError as error:
            raise CommandError(f"{count} batches are queued again, but {error}", returncode=1) from None
        return f"{count} batches enqueued again"
