"""The app's start in a process."""

import os
from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.db.backends.signals import connection_created

from poolhouse.helpers import inspection
from poolhouse.overview.observer import is_observer, spare_pooled_engines
from poolhouse.process import forks, pools
from poolhouse.tracing import statements


class PoolhouseConfig(AppConfig):
    """Labels connections and reports pools from the moment Django is set up."""

    name = "poolhouse"
    verbose_name = "Connection pools"

    def __init__(self, app_name: str, app_module: Any) -> None:
        super().__init__(app_name, app_module)
        if is_observer():  # now, before any app's models are loaded
            spare_pooled_engines()

    def ready(self) -> None:
        """Listen for connections and tasks, and start to report."""
        from poolhouse.checks import check_servers, check_settings
        from poolhouse.reports import keeper

        connection_created.connect(pools.remember_wrapper, dispatch_uid="poolhouse.remember_wrapper")
        connection_created.connect(statements.time_statements, dispatch_uid="poolhouse.time_statements")
        connection_created.connect(inspection.note_taken, dispatch_uid="poolhouse.note_taken")
        checks.register(check_settings)
        checks.register(check_servers, checks.Tags.database)
        if is_observer():
            return
        if find_spec("celery"):
            from poolhouse import tasks

            tasks.follow_tasks()
        os.register_at_fork(before=forks.before_fork)
        if find_spec("opentelemetry"):
            from poolhouse.metrics import otel

            otel.observe_pools()
        keeper.begin()
