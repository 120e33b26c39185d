"""Preparing the spool after a database has been migrated."""

import logging

import pyarrow as pa
from django.conf import settings
from django.db import connections

from telemetry import spool
from telemetry.formats import StorageUnavailableError

logger = logging.getLogger(__name__)


def prepare_spool(using: str) -> None:
    """Prepare a spool that is new, or that an older version without the marker file has used.

    If the ledger has files in the spool but the folder was never used, its volume may not be mounted. Then only a
    warning is logged, and an operator has to decide.

    Args:
        using: the alias of the database that has been migrated.
    """
    try:
        if spool.is_mounted():
            return
        if not spool.was_used() and _has_spooled_files(using):
            logger.warning(
                "the spool %s was never used, but the ledger refers to files in it: check that its volume is mounted. "
                "If this is the right folder, run manage.py prepare_spool",
                settings.INGEST_SPOOL,
            )
            return
        spool.prepare()
    except (StorageUnavailableError, pa.ArrowException) as error:
        logger.warning("cannot prepare the spool: %s; run manage.py prepare_spool where it is mounted", error)


def _has_spooled_files(using: str) -> bool:
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT to_regclass('ingest_file') IS NOT NULL")
        if cursor.fetchone() != (True,):
            return False
        cursor.execute("SELECT EXISTS (SELECT FROM ingest_file WHERE starts_with(location, %s))", [spool.SCHEME])
        return bool(cursor.fetchone() == (True,))
