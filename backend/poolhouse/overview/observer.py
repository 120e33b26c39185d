"""A process that only looks at the others: it needs no pool, runs no tasks, and has nothing to report."""

import sys
from typing import Any

from django.db import connections

from poolhouse.process.pools import LENDING_ENGINE

COMMANDS = ("db_pool_status", "monitor_connection_pool", "db_pool_advise")
STANDARD_ENGINE = "django.db.backends.postgresql"


def is_observer() -> bool:
    """Say whether this process was started as one of the COMMANDS."""
    return len(sys.argv) > 1 and sys.argv[1] in COMMANDS


def spare_pooled_engines() -> None:
    """Let each alias with a pooled engine have Django's own here, with the same server and driver.

    The first model that is loaded loads its database's engine, and a pooled one loads SQLAlchemy: an eighth of a second
    for a pool that stays empty. The settings stay as they are.
    """
    connections.settings = {
        alias: {**database, "ENGINE": STANDARD_ENGINE} if has_pooled_engine(database) else database
        for alias, database in connections.settings.items()
    }


def has_pooled_engine(database: dict[str, Any]) -> bool:
    """Say whether an alias has one of the pooled engines that are known by name, without loading it."""
    return database["ENGINE"] in (LENDING_ENGINE, "dj_db_conn_pool.backends.postgresql")
