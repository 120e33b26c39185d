"""The pools of this process, seen from inside it."""

import logging
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from poolhouse.driver import driver_errors
from poolhouse.identity import is_postgresql

logger = logging.getLogger(__name__)

# Wrappers live in their own thread's storage, out of the reach of others; this is how a reporting thread finds them.
_wrappers: "WeakSet[BaseDatabaseWrapper]" = WeakSet()
_wrappers_lock = threading.Lock()


@dataclass(frozen=True)
class PoolState:
    """One database alias of one process, at one moment. Every number counts connections."""

    alias: str
    engine: str
    kind: str
    """queuepool (dj_db_conn_pool), or per-thread (the standard backend: each thread has a connection of its own)"""
    size: int | None
    """what the pool keeps; None where nothing bounds it"""
    max: int | None
    """size and overflow; None where nothing bounds it"""
    in_use: int
    """lent to a thread; per-thread: open"""
    idle: int
    overflow: int
    """open above size"""

    @property
    def open(self) -> int:
        """Connections that this process holds on the server."""
        return self.in_use + self.idle


def pool_states() -> list[PoolState]:
    """Look at every PostgreSQL alias of this process, without opening a connection or waiting for one."""
    return [
        _queuepool_state(alias, database) if "dj_db_conn_pool" in database["ENGINE"] else _per_thread_state(alias)
        for alias, database in connections.settings.items()
        if is_postgresql(database["ENGINE"])
    ]


def _queuepool_state(alias: str, database: dict[str, Any]) -> PoolState:
    from dj_db_conn_pool.core import pool_container

    defaults = pool_container.pool_default_params
    pool_options = database.get("POOL_OPTIONS", {})
    size = pool_options.get("POOL_SIZE", defaults["pool_size"])
    max_overflow = pool_options.get("MAX_OVERFLOW", defaults["max_overflow"])
    in_use = idle = overflow = 0
    if pool_container.has(alias):  # it is made when the first connection is asked for
        pool = pool_container.get(alias)
        in_use, idle, overflow = pool.checkedout(), pool.checkedin(), max(0, pool.overflow())
    return PoolState(
        alias=alias,
        engine=_engine_in_use(alias),
        kind="queuepool",
        size=size,
        max=None if max_overflow < 0 else size + max_overflow,
        in_use=in_use,
        idle=idle,
        overflow=overflow,
    )


def _per_thread_state(alias: str) -> PoolState:
    with _wrappers_lock:
        held = [wrapper for wrapper in _wrappers if wrapper.alias == alias and wrapper.connection is not None]
    return PoolState(
        alias=alias,
        engine=_engine_in_use(alias),
        kind="per-thread",
        size=None,
        max=None,
        in_use=len(held),
        idle=0,
        overflow=0,
    )


def _engine_in_use(alias: str) -> str:
    """Name the engine that this process really has, whatever its settings say."""
    return type(connections[alias]).__module__.removesuffix(".base")


def remember_wrapper(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Receive Django's `connection_created`."""
    with _wrappers_lock:
        _wrappers.add(connection)


def forget_parent() -> None:
    """Forget, in a forked child, what belongs to the parent; nothing is closed, since the sockets are shared."""
    global _wrappers, _wrappers_lock
    _wrappers, _wrappers_lock = WeakSet(), threading.Lock()


def warm_up() -> None:
    """Open the connections that a process is to start with: `DATABASES[alias]["POOLHOUSE"]["MIN_CONNECTIONS"]`.

    A server that cannot be reached now is logged, not raised: the process can start and connect later.
    """
    for alias, database in connections.settings.items():
        wanted = database.get("POOLHOUSE", {}).get("MIN_CONNECTIONS", 0)
        if wanted and "dj_db_conn_pool" in database["ENGINE"]:
            _fill(alias, wanted)


def _fill(alias: str, wanted: int) -> None:
    from dj_db_conn_pool.core import pool_container

    wrapper = connections[alias]
    try:
        wrapper.ensure_connection()
        with ExitStack() as borrowed:
            for _ in range(wanted - 1):  # held together, so that each is another one; the wrapper holds the first
                borrowed.callback(pool_container.get(alias).connect().close)
    except driver_errors(alias) as error:
        logger.warning("%s: could not open the first %d connections: %s", alias, wanted, error)
    finally:
        wrapper.close()
