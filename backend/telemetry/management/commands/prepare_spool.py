"""`manage.py prepare_spool`: say that the folder INGEST_SPOOL is the spool."""

from typing import Any

from django.conf import settings

from poolhouse.display.reasons import ReasonCommand
from telemetry import spool
from telemetry.formats import SPOOL_MARKER


class Command(ReasonCommand):
    """A door to `telemetry.spool.prepare`; migrate does it for a spool that is new."""

    help = (
        f"Make the folder INGEST_SPOOL and {SPOOL_MARKER} in it, by which a spool is told from a mount point without "
        "its volume. Run it where the volume is mounted. A spool with a URL needs none."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Make it."""
        spool.prepare()
        self.stdout.write(f"{settings.INGEST_SPOOL} is ready")
