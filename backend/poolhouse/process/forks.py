"""Pools that a fork would share with the child. No check of the settings can foresee it, so it is logged then."""

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from django.core import checks
from django.db import connections

from poolhouse.backends import is_lending
from poolhouse.formatting import counted
from poolhouse.process.pools import is_pooled

logger = logging.getLogger(__name__)

_logged: set[str] = set()


def pools_in_prefork() -> Iterator[checks.CheckMessage]:
    """Yield a warning for each alias whose pool cannot be used in a Celery prefork worker."""
    for alias, database in connections.settings.items():
        if is_pooled(database) and not is_lending(database["ENGINE"]):
            yield checks.Warning(
                f"DATABASES[{alias!r}] has a pool that cannot be used after a fork, and Celery's prefork workers fork.",
                hint="In the worker, use Django's own engine without a pool, or poolhouse.engines.postgresql, which "
                "makes a new pool in each child, or start it with --pool threads. (Celery closes Django's own pool "
                "after each task.)",
                id="poolhouse.W006",
            )


def open_pools_at_fork() -> Iterator[checks.CheckMessage]:
    """Yield a warning for each pool with open connections that a forked child would share."""
    for alias, count in _open_counts():
        yield checks.Warning(
            f"The pool of {alias!r} has {counted(count, 'connection')} open and this process is about to fork: "
            "parent and child would share them.",
            hint="Do not query the database before forking (gunicorn: preload_app, uWSGI: lazy-apps, multiprocessing: "
            "spawn), or use poolhouse.engines.postgresql, which makes a new pool in each child.",
            id="poolhouse.W007",
        )


def log_messages(messages: Iterable[checks.CheckMessage]) -> None:
    """Log the messages, each once per process."""
    for message in messages:
        line = f"{message.id}: {message.msg}"
        if line not in _logged:
            _logged.add(line)
            logger.warning("%s %s", line, message.hint)


def before_fork() -> None:
    """Handle `os.register_at_fork`'s call in the parent."""
    log_messages(open_pools_at_fork())


def _open_counts() -> Iterator[tuple[str, int]]:
    """Yield the aliases whose pools do not survive a fork, and their open connections, without making a pool."""
    if core := sys.modules.get("dj_db_conn_pool.core"):
        for alias, pool in core.pool_container.items():
            is_safe = alias in connections.settings and is_lending(connections.settings[alias]["ENGINE"])
            if not is_safe and (count := pool.checkedin() + pool.checkedout()):
                yield alias, count
    if base := sys.modules.get("django.db.backends.postgresql.base"):
        native: dict[str, Any] = base.DatabaseWrapper._connection_pools
        for alias, pool in native.items():
            if count := pool.get_stats().get("pool_size", 0):
                yield alias, count
