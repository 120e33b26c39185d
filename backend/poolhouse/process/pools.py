"""The state of this process' pools, in the same form for every strategy."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from poolhouse.backends import is_lending, is_postgresql, is_queuepool
from poolhouse.driver import driver_errors
from poolhouse.engines.leaks import Suspect, suspects_among
from poolhouse.measures.histogram import Histogram
from poolhouse.tracing.statements import time_statements
from poolhouse.tracing.work import current_work

if TYPE_CHECKING:  # engines that a project may not have installed
    from poolhouse.engines.lease import Lease
    from poolhouse.engines.postgresql.base import DatabaseWrapper as LendingWrapper

logger = logging.getLogger(__name__)

LENDING_ENGINE = "poolhouse.engines.postgresql"

# psycopg_pool's default; its default for max_size is min_size.
PSYCOPG_MIN_SIZE = 4

# An attribute of a wrapper: the time of perf_counter at which it got a connection.
_TAKEN_AT = "_poolhouse_taken_at"

# Wrappers are stored per thread; the reporting thread finds those of other threads here.
_wrappers: "WeakSet[BaseDatabaseWrapper]" = WeakSet()
_wrappers_lock = threading.Lock()
_taken: Counter[str] = Counter()
"""by alias, the connections that wrappers have got: opened for them (per-thread), or checked out (native)"""


@dataclass(frozen=True)
class PoolState:
    """The pool of one alias in one process. What an engine does not report is None or missing in `counts`."""

    alias: str
    engine: str
    kind: str
    """queuepool (dj_db_conn_pool's, or this app's), native (Django's own, psycopg_pool), or per-thread"""
    size: int | None
    """connections that the pool keeps open; None without a limit"""
    max: int | None
    """size and overflow; None without a limit"""
    in_use: int
    """connections checked out; with per-thread: open"""
    idle: int
    overflow: int
    """connections open above size"""
    waiting: int | None = None
    """waiters"""
    counts: dict[str, int] = field(default_factory=dict)
    """counters since the process started: `poolhouse.measures.meter.COUNTERS`"""
    wait: Histogram | None = None
    """wait times, including pool timeouts"""
    hold: Histogram | None = None
    """hold times"""
    connect: Histogram | None = None
    """times to open a connection"""
    suspects: tuple[Suspect, ...] = ()
    """connections held for longer than LEAK_THRESHOLD_S"""
    peak: int | None = None
    """the most connections in use at once since the process started"""
    min: int | None = None
    """connections that the pool keeps open when none is needed"""

    def as_document(self) -> dict[str, Any]:
        """Return the JSON data; durations as count, mean and percentiles, in seconds."""
        durations = {"wait": self.wait, "hold": self.hold, "connect": self.connect}
        return {
            **vars(self),
            **{name: histogram and histogram.summary() for name, histogram in durations.items()},
            "suspects": [vars(suspect) for suspect in self.suspects],
        }

    @property
    def idle_max(self) -> int | None:
        """The most connections that stay open when idle; None if their number does not decide that."""
        return self.size if self.kind == "queuepool" else None

    @property
    def looks_for_leaks(self) -> bool:
        """Return True if the engine looks for leak suspects, as this app's does."""
        return self.kind == "queuepool" and self.min is not None  # the plain engine has no minimum

    @property
    def open(self) -> int:
        """The connections that this process has open."""
        return self.in_use + self.idle


def pool_states() -> list[PoolState]:
    """Return the state of each PostgreSQL alias of this process, without opening or waiting for a connection."""
    follow_connections()  # the project may have added an alias after the start
    return [
        _reader_of(database)(alias, database)
        for alias, database in connections.settings.items()
        if is_postgresql(database["ENGINE"])
    ]


def is_pooled(database: dict[str, Any]) -> bool:
    """Return True if an alias, by its settings, has a pool that threads share."""
    return is_queuepool(database["ENGINE"]) or _has_native(database)


def _has_native(database: dict[str, Any]) -> bool:
    return bool(database.get("OPTIONS", {}).get("pool"))


def _reader_of(database: dict[str, Any]) -> Callable[[str, dict[str, Any]], PoolState]:
    if is_lending(database["ENGINE"]):
        return _lending_state
    if is_queuepool(database["ENGINE"]):
        return _queuepool_state
    return _native_state if _has_native(database) else _per_thread_state


def _lending_state(alias: str, database: dict[str, Any]) -> PoolState:
    wrapper = _lending_wrapper(alias)
    settings, pool = wrapper.pool_options, wrapper.pool_if_made()
    bound = None if settings.MAX_OVERFLOW < 0 else settings.POOL_SIZE + settings.MAX_OVERFLOW
    state: dict[str, Any] = {
        "alias": alias,
        "engine": _engine_in_use(alias),
        "kind": "queuepool",
        "size": settings.POOL_SIZE,
        "min": settings.MIN_SIZE,
    }
    if pool is None:  # it is made with the first connection
        return PoolState(**state, max=bound, in_use=0, idle=0, overflow=0, waiting=0)
    leases = pool.leases()
    in_use, idle = len(leases), pool.checkedin()
    return PoolState(
        **state,
        max=bound,
        in_use=in_use,
        idle=idle,
        overflow=max(0, in_use + idle - settings.POOL_SIZE),
        waiting=pool.waiting,
        suspects=suspects_among(leases),
        **pool.meter.read(),
    )


def _queuepool_state(alias: str, database: dict[str, Any]) -> PoolState:
    from dj_db_conn_pool.core import pool_container

    defaults = pool_container.pool_default_params
    pool_options = database.get("POOL_OPTIONS", {})
    size = pool_options.get("POOL_SIZE", defaults["pool_size"])
    max_overflow = pool_options.get("MAX_OVERFLOW", defaults["max_overflow"])
    in_use = idle = overflow = 0
    if pool_container.has(alias):
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


def _native_state(alias: str, database: dict[str, Any]) -> PoolState:
    """Read psycopg's pool: https://www.psycopg.org/psycopg3/docs/advanced/pool.html#pool-stats.

    Its usage_ms stays 0: `pool.connection()` counts it, but Django calls getconn and putconn. Its pool_size includes
    connections that are still to be opened, and its requests those that failed, so connections in use are counted by
    the wrappers.
    """
    stats = _native_stats(alias, database)  # keys with the value 0 may be missing
    held, checkouts = _taken_by_wrappers(alias)
    in_use, idle = len(held), stats.get("pool_available", 0)
    connects = stats.get("connections_num", 0)
    return PoolState(
        alias=alias,
        engine=_engine_in_use(alias),
        kind="native",
        size=stats["pool_min"],
        min=stats["pool_min"],
        max=stats["pool_max"],
        in_use=in_use,
        idle=idle,
        overflow=max(0, in_use + idle - stats["pool_min"]),
        waiting=stats.get("requests_waiting", 0),
        counts={
            "lent": checkouts,
            "timeouts": stats.get("requests_errors", 0),
            "connects": connects,
            "connect_errors": stats.get("connections_errors", 0),
            "invalidated": stats.get("connections_lost", 0) + stats.get("returns_bad", 0),
        },
        wait=Histogram(total_s=stats.get("requests_wait_ms", 0) / 1000, without_bucket=stats.get("requests_num", 0)),
        connect=Histogram(total_s=stats.get("connections_ms", 0) / 1000, without_bucket=connects),
    )


def _native_stats(alias: str, database: dict[str, Any]) -> dict[str, int]:
    """Return the pool's statistics, or the sizes of a pool that was not made yet.

    The wrapper's `pool` is not used: it imports psycopg_pool and makes the pool.
    """
    if pool := getattr(type(connections[alias]), "_connection_pools", {}).get(alias):
        stats: dict[str, int] = pool.get_stats()
        return stats
    given = database["OPTIONS"]["pool"]
    sizes = given if isinstance(given, dict) else {}
    least = sizes.get("min_size", PSYCOPG_MIN_SIZE)
    return {"pool_min": least, "pool_max": sizes.get("max_size") or least}


def _per_thread_state(alias: str, database: dict[str, Any]) -> PoolState:
    held, connects = _taken_by_wrappers(alias)
    return PoolState(
        alias=alias,
        engine=_engine_in_use(alias),
        kind="per-thread",
        size=None,
        max=None,
        in_use=len(held),
        idle=0,
        overflow=0,
        counts={"connects": connects},
    )


def _taken_by_wrappers(alias: str) -> tuple[list[BaseDatabaseWrapper], int]:
    """Return the wrappers that have a connection, and the number that they have got since the process started."""
    with _wrappers_lock:
        held = [wrapper for wrapper in _wrappers if wrapper.alias == alias and wrapper.connection is not None]
        return held, _taken[alias]


def _engine_in_use(alias: str) -> str:
    """Return the engine that this process really has, whatever the settings say now."""
    return type(connections[alias]).__module__.removesuffix(".base")


def _lending_wrapper(alias: str) -> "LendingWrapper":
    from poolhouse.engines.postgresql.base import DatabaseWrapper

    wrapper = connections[alias]
    if not isinstance(wrapper, DatabaseWrapper):
        raise TypeError(f"{alias}: the engine was changed after its first use, from {type(wrapper).__module__}")
    return wrapper


def follow_connections() -> None:
    """Track the connections of engines other than this app's, which tracks its own.

    Without such engines no receiver is connected: it would cost each checkout 4 µs of 85.
    """
    if len(lending_aliases()) < len(connections.settings):
        connection_created.connect(_note_connection, dispatch_uid="poolhouse.note_connection")


def _note_connection(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Receive Django's `connection_created`: a thread has opened a connection or checked one out."""
    if is_lending(connection.settings_dict["ENGINE"]):
        return
    time_statements(connection)
    vars(connection)[_TAKEN_AT] = time.perf_counter()
    if (work := current_work()) is not None:
        if is_pooled(connection.settings_dict):
            work.has_unknown_opens = True
        else:
            work.opened_count += 1
    if is_queuepool(connection.settings_dict["ENGINE"]):  # it tracks its own
        return
    with _wrappers_lock:
        _wrappers.add(connection)
        _taken[connection.alias] += 1


def held_s(wrapper: BaseDatabaseWrapper) -> float | None:
    """Return how long a wrapper has had its connection, or None if that is unknown."""
    if is_lending(wrapper.settings_dict["ENGINE"]):
        lease: Lease = wrapper.connection.lease
        return lease.held_s()
    taken_at = vars(wrapper).get(_TAKEN_AT)
    return None if taken_at is None else time.perf_counter() - taken_at


def forget_parent() -> None:
    """Forget, in a forked child, the parent's connections; nothing is closed, since the sockets are shared."""
    global _wrappers, _wrappers_lock, _taken
    _wrappers, _wrappers_lock, _taken = WeakSet(), threading.Lock(), Counter()


def lending_aliases() -> list[str]:
    """Return the aliases that have this app's engine."""
    return [alias for alias, database in connections.settings.items() if is_lending(database["ENGINE"])]


def lending_wrappers() -> "list[LendingWrapper]":
    """Return this thread's wrapper of each alias that has this app's engine."""
    return [_lending_wrapper(alias) for alias in lending_aliases()]


def warm_up() -> None:
    """Open the MIN_SIZE connections of each pool.

    An unreachable server is logged, not raised: the process can start and connect later.
    """
    for wrapper in lending_wrappers():
        try:
            wrapper.keep_warm()
        except driver_errors(wrapper.alias) as error:
            logger.warning("%s: cannot open the MIN_SIZE connections at the start: %s", wrapper.alias, error)
