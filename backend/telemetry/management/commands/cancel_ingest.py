"""`manage.py cancel_ingest`: do not load what a job has not loaded yet."""

from typing import Any

from telemetry.cancellation import cancel_job
from telemetry.management.job_command import JobCommand


class Command(JobCommand):
    """A door to `telemetry.cancellation.cancel_job`."""

    help = (
        "Cancel a job's queued batches, and stop those that are being loaded. What is loaded stays; retry_ingest takes "
        "the job up again."
    )

    def act(self, job_id: int, options: dict[str, Any]) -> str:
        """Do it, and say to how many."""
        return str(cancel_job(job_id))
