"""Applying CONN_MAX_AGE and CONN_HEALTH_CHECKS to a worker's database connections."""

from typing import Any

from celery.signals import task_postrun, task_prerun
from django.db import close_old_connections


def follow_conn_max_age() -> None:
    """Close old and failed connections before and after each task, as Django does for each request."""
    task_prerun.connect(_close_old_connections, weak=False, dispatch_uid="worker.close_old_connections")
    task_postrun.connect(_close_old_connections, weak=False, dispatch_uid="worker.close_old_connections")


def _close_old_connections(**_: Any) -> None:
    close_old_connections()
