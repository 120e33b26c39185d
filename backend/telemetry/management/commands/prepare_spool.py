"""`manage.py prepare_spool`: mark the folder INGEST_SPOOL as the spool."""

from typing import Any

from django.conf import settings

from poolhouse.display.reasons import ReasonCommand
from telemetry import spool
from telemetry.formats import SPOOL_MARKER


class Command(ReasonCommand):
    """Prepare the spool with `telemetry.spool.prepare`; migrate does this for a new spool."""

    help = (
        f"Create the folder INGEST_SPOOL with the file {SPOOL_MARKER}, which distinguishes a spool from a mount point "
        "whose volume is not mounted. Run it where the volume is mounted. Not needed if INGEST_SPOOL is a URL."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Prepare the spool."""
        spool.prepare()
        self.stdout.write(f"{settings.INGEST_SPOOL} is ready")
