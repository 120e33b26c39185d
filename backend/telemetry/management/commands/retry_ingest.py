"""`manage.py retry_ingest`: give a job's parked and cancelled batches another try."""

from telemetry.intake import retry_job
from telemetry.management.job_command import JobCommand


class Command(JobCommand):
    """A door to `telemetry.intake.retry_job`."""

    help = "Enqueue a job's parked and cancelled batches again."

    def act(self, job_id: int) -> str:
        """Do it, and say to how many."""
        return f"{retry_job(job_id)} batches enqueued again"
