"""Processes that only monitor: they have no pool, run no tasks and do not report."""

import sys
from typing import Any

from django.db import connections

from poolhouse.process.pools import LENDING_ENGINE

COMMANDS = ("db_pool_status", "monitor_connection_pool", "db_pool_advise")
STANDARD_ENGINE = "django.db.backends.postgresql"


def is_observer() -> bool:
    """Return True if this process was started as one of the COMMANDS."""
    return len(sys.argv) > 1 and sys.argv[1] in COMMANDS


def spare_pooled_engines() -> None:
    """Give each alias with a pooled engine Django's own engine, with the same server and driver.

    The first model that is loaded loads its database's engine, and a pooled one imports SQLAlchemy: an eighth of a
    second for a pool that stays unused. The settings are not changed.
    """
    connections.settings = {
        alias: {**database, "ENGINE": STANDARD_ENGINE} if has_pooled_engine(database) else database
        for alias, database in connections.settings.items()
    }


def has_pooled_engine(database: dict[str, Any]) -> bool:
    """Return True if an alias has a pooled engine that is known by name, without importing it."""
    return database["ENGINE"] in (LENDING_ENGINE, "dj_db_conn_pool.backends.postgresql")
