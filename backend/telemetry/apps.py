"""The app's start."""

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db import connections
from django.db.models.signals import post_migrate


class TelemetryConfig(AppConfig):
    """Keeps the hypertable's chunk interval as the settings have it, and prepares a new spool."""

    name = "telemetry"

    def ready(self) -> None:
        """Listen for the end of a migration."""
        post_migrate.connect(_set_chunk_interval, sender=self, dispatch_uid="telemetry.set_chunk_interval")
        post_migrate.connect(_prepare_spool, sender=self, dispatch_uid="telemetry.prepare_spool")


def _set_chunk_interval(*, using: str, **_: Any) -> None:
    """Apply READING_CHUNK_INTERVAL_HOURS to chunks made from now on; those that exist keep their span."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT to_regclass('reading') IS NOT NULL")
        if cursor.fetchone() == (True,):
            cursor.execute(
                "SELECT set_chunk_time_interval('reading', make_interval(hours => %s))",
                [settings.READING_CHUNK_INTERVAL_HOURS],
            )


def _prepare_spool(*, using: str, **_: Any) -> None:
    from telemetry.preparation import prepare_spool  # it loads pyarrow, which most commands do without

    prepare_spool(using)
