"""`manage.py cancel_ingest`: do not load what a job has not loaded yet."""

from typing import Any

from telemetry.intake import cancel_job
from telemetry.management.job_command import JobCommand


class Command(JobCommand):
    """A door to `telemetry.intake.cancel_job`."""

    help = "Cancel a job's queued batches. What is loaded stays; retry_ingest takes the job up again."

    def act(self, job_id: int, options: dict[str, Any]) -> str:
        """Do it, and say to how many."""
        return f"{cancel_job(job_id)} batches cancelled"
