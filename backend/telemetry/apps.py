"""The app's start."""

import logging
from typing import Any

import pyarrow as pa
from django.apps import AppConfig
from django.conf import settings
from django.db import connections
from django.db.models.signals import post_migrate

from telemetry import spool
from telemetry.formats import StorageUnavailableError

logger = logging.getLogger(__name__)


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
    """Prepare a spool that is new, or that a version without a marker has used.

    Where the ledger has files in the spool, and the folder was never used, its volume may not be mounted; a person must
    look.
    """
    try:
        if spool.is_mounted():
            return
        if not spool.was_used() and _has_spooled_files(using):
            logger.warning(
                "the ledger has files in the spool, and %s was never used; is its volume mounted? If this is the right "
                "folder, run manage.py prepare_spool",
                settings.INGEST_SPOOL,
            )
            return
        spool.prepare()
    except (StorageUnavailableError, pa.ArrowException) as error:
        logger.warning("the spool could not be prepared: %s; run manage.py prepare_spool where it is mounted", error)


def _has_spooled_files(using: str) -> bool:
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT to_regclass('ingest_file') IS NOT NULL")
        if cursor.fetchone() != (True,):
            return False
        cursor.execute("SELECT EXISTS (SELECT FROM ingest_file WHERE starts_with(location, %s))", [spool.SCHEME])
        return bool(cursor.fetchone() == (True,))
