"""How long a worker's process keeps its database connection: as CONN_MAX_AGE and CONN_HEALTH_CHECKS say."""

from typing import Any

from celery.signals import task_postrun, task_prerun
from django.db import close_old_connections


def follow_conn_max_age() -> None:
    """Treat a task as Django treats a request: around it, close what is too old or has failed, and keep the rest."""
    task_prerun.connect(_close_old_connections, weak=False, dispatch_uid="worker.close_old_connections")
    task_postrun.connect(_close_old_connections, weak=False, dispatch_uid="worker.close_old_connections")


def _close_old_connections(**_: Any) -> None:
    close_old_connections()
