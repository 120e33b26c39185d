"""`manage.py retry_ingest`: enqueue a job's parked and cancelled batches again."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from telemetry.arguments import argument
from telemetry.intake import BrokerUnavailableError, RejectLimit, announce, retry_job
from telemetry.management.job_command import JobCommand


class Command(JobCommand):
    """Retry a job with `telemetry.intake.retry_job`."""

    help = "Enqueue a job's parked and cancelled batches again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the option for the rejected rows."""
        super().add_arguments(parser)
        parser.add_argument(
            "--max-rejects",
            type=argument(RejectLimit.of),
            metavar="N|P%",
            help="new limit of the job's rejected rows, as a number or a percentage (default: keep the limit)",
        )

    def act(self, job_id: int, options: dict[str, Any]) -> str:
        """Queue the batches, and return their number."""
        count = retry_job(job_id, options["max_rejects"])
        try:
            if count:
                announce(job_id)
        except BrokerUnavailableError as error:
            raise CommandError(f"{count} batches were queued again, but {error}", returncode=1) from None
        return f"{count} batches enqueued again"
