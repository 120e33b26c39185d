"""The app's configuration: what it registers when Django starts."""

import logging
import os
from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig
from django.core import checks

from poolhouse.overview.observer import is_observer, spare_pooled_engines
from poolhouse.process import forks, pools

logger = logging.getLogger(__name__)


class PoolhouseConfig(AppConfig):
    """Label connections and report pools from Django's start on."""

    name = "poolhouse"
    verbose_name = "Connection pools"

    def __init__(self, app_name: str, app_module: Any) -> None:
        super().__init__(app_name, app_module)
        if is_observer():  # before any app's models are loaded
            spare_pooled_engines()

    def ready(self) -> None:
        """Register the system checks and signal receivers, and start the reporting thread."""
        from poolhouse.checks import check_servers, check_settings
        from poolhouse.reports import keeper

        pools.follow_connections()
        checks.register(check_settings)
        checks.register(check_servers, checks.Tags.database)
        if is_observer():
            return
        if find_spec("celery"):
            from poolhouse import tasks

            tasks.follow_tasks()
        os.register_at_fork(before=forks.before_fork)
        _register_with_opentelemetry()
        keeper.begin()


def _register_with_opentelemetry() -> None:
    """Register the pools with OpenTelemetry if its API is installed."""
    if not find_spec("opentelemetry") or not find_spec("opentelemetry.metrics"):  # other packages share the first name
        return
    try:
        from poolhouse.metrics import otel

        otel.observe_pools()
    except Exception as error:  # noqa: BLE001 - no error of OpenTelemetry may keep a project from starting
        logger.warning("cannot register the pools with OpenTelemetry: %s: %s", type(error).__name__, error)
