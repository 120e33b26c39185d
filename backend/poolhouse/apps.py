"""The app's start in a process."""

from importlib.util import find_spec

from django.apps import AppConfig
from django.core import checks
from django.db.backends.signals import connection_created

from poolhouse import pools, statements


class PoolhouseConfig(AppConfig):
    """Labels connections and reports pools from the moment Django is set up."""

    name = "poolhouse"
    verbose_name = "Connection pools"

    def ready(self) -> None:
        """Listen for connections and tasks, and start to report."""
        from poolhouse import keeper
        from poolhouse.checks import check_fleet, check_settings

        connection_created.connect(pools.remember_wrapper, dispatch_uid="poolhouse.remember_wrapper")
        connection_created.connect(statements.time_statements, dispatch_uid="poolhouse.time_statements")
        if find_spec("celery"):
            from poolhouse import tasks

            tasks.follow_tasks()
        checks.register(check_settings)
        checks.register(check_fleet, checks.Tags.database)
        keeper.begin()
