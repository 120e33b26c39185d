"""Django's configuration of the app."""

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db import connections
from django.db.models.signals import post_migrate


class TelemetryConfig(AppConfig):
    """After a migration, sets the hypertable's chunk interval and prepares a new spool."""

    name = "telemetry"

    def ready(self) -> None:
        """Connect to the signal at the end of a migration."""
        post_migrate.connect(_set_chunk_interval, sender=self, dispatch_uid="telemetry.set_chunk_interval")
        post_migrate.connect(_prepare_spool, sender=self, dispatch_uid="telemetry.prepare_spool")


def _set_chunk_interval(*, using: str, **_: Any) -> None:
    """Set READING_CHUNK_INTERVAL_HOURS for new chunks; existing ones keep their interval."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT to_regclass('reading') IS NOT NULL")
        if cursor.fetchone() == (True,):
            cursor.execute(
                "SELECT set_chunk_time_interval('reading', make_interval(hours => %s))",
                [settings.READING_CHUNK_INTERVAL_HOURS],
            )


def _prepare_spool(*, using: str, **_: Any) -> None:
    from telemetry.preparation import prepare_spool  # imports pyarrow, which most commands do not need

    prepare_spool(using)
