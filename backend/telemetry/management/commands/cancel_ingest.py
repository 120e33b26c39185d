"""`manage.py cancel_ingest`: cancel the rest of a job."""

from typing import Any

from telemetry.cancellation import cancel_job
from telemetry.management.job_command import JobCommand


class Command(JobCommand):
    """Cancel a job with `telemetry.cancellation.cancel_job`."""

    help = (
        "Cancel a job's queued batches, and stop those that are being loaded. Readings that were loaded are kept; "
        "retry_ingest resumes the job."
    )

    def act(self, job_id: int, options: dict[str, Any]) -> str:
        """Cancel the job, and return the numbers of batches."""
        return str(cancel_job(job_id))
