"""The pools of this process, seen from inside it; the same facts for every strategy, as far as each can give them."""

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

if TYPE_CHECKING:  # engines that a project need not have installed
    from poolhouse.engines.lending import Lease
    from poolhouse.engines.postgresql.base import DatabaseWrapper as LendingWrapper

logger = logging.getLogger(__name__)

LENDING_ENGINE = "poolhouse.engines.postgresql"

# psycopg_pool's default; its default for max_size is min_size.
PSYCOPG_MIN_SIZE = 4

# An attribute of a wrapper: when, on the clock of perf_counter, it got a connection.
_TAKEN_AT = "_poolhouse_taken_at"

# Wrappers live in their own thread's storage, out of the reach of others; this is how a reporting thread finds them.
_wrappers: "WeakSet[BaseDatabaseWrapper]" = WeakSet()
_wrappers_lock = threading.Lock()
_taken: Counter[str] = Counter()
"""by alias, the connections that wrappers have got: per-thread, they were opened for them; native, lent to them"""


@dataclass(frozen=True)
class PoolState:
    """One database alias of one process, at one moment. What an engine does not tell is None, or not in `counts`."""

    alias: str
    engine: str
    kind: str
    """queuepool (dj_db_conn_pool's, or this app's on it), native (Django's own, of psycopg), or per-thread"""
    size: int | None
    """connections that the pool keeps; None where nothing bounds it"""
    max: int | None
    """size and overflow; None where nothing bounds it"""
    in_use: int
    """connections lent to a thread; per-thread: open"""
    idle: int
    overflow: int
    """connections open above size"""
    waiting: int | None = None
    """callers that wait for a connection"""
    counts: dict[str, int] = field(default_factory=dict)
    """what has happened since the process began: `poolhouse.measures.meter.COUNTERS`"""
    wait: Histogram | None = None
    """from asking for a connection to having it, or to the timeout"""
    hold: Histogram | None = None
    """from having it to returning it"""
    connect: Histogram | None = None
    """opening one"""
    suspects: tuple[Suspect, ...] = ()
    """connections that are held for longer than LEAK_THRESHOLD_S"""
    peak: int | None = None
    """connections that were lent at once, at most, since the process began"""
    min: int | None = None
    """connections that the pool keeps open even when nobody asks for one"""

    def as_document(self) -> dict[str, Any]:
        """Give the state as JSON data; durations as count, mean and percentiles, in seconds."""
        durations = {"wait": self.wait, "hold": self.hold, "connect": self.connect}
        return {
            **vars(self),
            **{name: histogram and histogram.summary() for name, histogram in durations.items()},
            "suspects": [vars(suspect) for suspect in self.suspects],
        }

    @property
    def idle_max(self) -> int | None:
        """Connections that the pool keeps when they come back; None where their number is not what decides."""
        return self.size if self.kind == "queuepool" else None

    @property
    def looks_for_leaks(self) -> bool:
        """Whether `suspects` is more than empty for lack of anyone who looks: this app's engine does."""
        return self.kind == "queuepool" and self.min is not None  # the plain one has no minimum

    @property
    def open(self) -> int:
        """Connections that this process holds on the server."""
        return self.in_use + self.idle


def pool_states() -> list[PoolState]:
    """Look at every PostgreSQL alias of this process, without opening a connection or waiting for one."""
    follow_connections()  # a project may have added an alias since it was started
    return [
        _reader_of(database)(alias, database)
        for alias, database in connections.settings.items()
        if is_postgresql(database["ENGINE"])
    ]


def is_pooled(database: dict[str, Any]) -> bool:
    """Say whether an alias, by its settings, has a pool that threads share."""
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
    if pool is None:  # it is made when the first connection is asked for
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
    """Ask psycopg's pool: https://www.psycopg.org/psycopg3/docs/advanced/pool.html#pool-stats.

    Its usage_ms stays 0: it is counted by `pool.connection()`, and Django calls getconn and putconn. Its pool_size has
    connections that are still to be opened, and its requests those that are in vain: what is lent, the wrappers know.
    """
    stats = _native_stats(alias, database)  # a key whose value is 0 may be missing
    held, lent = _taken_by_wrappers(alias)
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
            "lent": lent,
            "timeouts": stats.get("requests_errors", 0),
            "connects": connects,
            "connect_errors": stats.get("connections_errors", 0),
            "invalidated": stats.get("connections_lost", 0) + stats.get("returns_bad", 0),
        },
        wait=Histogram(total_s=stats.get("requests_wait_ms", 0) / 1000, without_bucket=stats.get("requests_num", 0)),
        connect=Histogram(total_s=stats.get("connections_ms", 0) / 1000, without_bucket=connects),
    )


def _native_stats(alias: str, database: dict[str, Any]) -> dict[str, int]:
    """Return what the pool counts; of one that is not made yet, the sizes that it will have.

    The wrapper's own `pool` is not asked: it imports psycopg_pool and makes the pool.
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
    """Give the wrappers that have a connection, and how many they have got since the process began."""
    with _wrappers_lock:
        held = [wrapper for wrapper in _wrappers if wrapper.alias == alias and wrapper.connection is not None]
        return held, _taken[alias]


def _engine_in_use(alias: str) -> str:
    """Name the engine that this process really has, whatever its settings say."""
    return type(connections[alias]).__module__.removesuffix(".base")


def _lending_wrapper(alias: str) -> "LendingWrapper":
    from poolhouse.engines.postgresql.base import DatabaseWrapper

    wrapper = connections[alias]
    if not isinstance(wrapper, DatabaseWrapper):
        raise TypeError(f"{alias}: the engine was changed after its first use, from {type(wrapper).__module__}")
    return wrapper


def follow_connections() -> None:
    """Note from now on who gets connections of other engines than this app's, which knows its borrowers itself.

    Where it is the only one, nothing listens: a signal with a receiver costs each of its borrowers 4 µs of 85.
    """
    if len(lending_aliases()) < len(connections.settings):
        connection_created.connect(_note_connection, dispatch_uid="poolhouse.note_connection")


def _note_connection(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Receive Django's `connection_created`: a thread has opened a connection, or a pool has lent it one."""
    if is_lending(connection.settings_dict["ENGINE"]):
        return
    time_statements(connection)
    vars(connection)[_TAKEN_AT] = time.perf_counter()
    if (work := current_work()) is not None:
        if is_pooled(connection.settings_dict):
            work.has_unknown_opens = True
        else:
            work.opened_count += 1
    if is_queuepool(connection.settings_dict["ENGINE"]):  # it knows its own
        return
    with _wrappers_lock:
        _wrappers.add(connection)
        _taken[connection.alias] += 1


def held_s(wrapper: BaseDatabaseWrapper) -> float | None:
    """Give for how long a wrapper has had its connection; None: that was not noted."""
    if is_lending(wrapper.settings_dict["ENGINE"]):
        lease: Lease = wrapper.connection.lease
        return lease.held_s()
    taken_at = vars(wrapper).get(_TAKEN_AT)
    return None if taken_at is None else time.perf_counter() - taken_at


def forget_parent() -> None:
    """Forget, in a forked child, what belongs to the parent; nothing is closed, since the sockets are shared."""
    global _wrappers, _wrappers_lock, _taken
    _wrappers, _wrappers_lock, _taken = WeakSet(), threading.Lock(), Counter()


def lending_aliases() -> list[str]:
    """Give the aliases that have this app's engine."""
    return [alias for alias, database in connections.settings.items() if is_lending(database["ENGINE"])]


def lending_wrappers() -> "list[LendingWrapper]":
    """Give this thread's wrapper of each alias that has this app's engine."""
    return [_lending_wrapper(alias) for alias in lending_aliases()]


def warm_up() -> None:
    """Open the connections that a process is to start with: MIN_SIZE of POOL_OPTIONS.

    A server that cannot be reached now is logged, not raised: the process can start and connect later.
    """
    for wrapper in lending_wrappers():
        try:
            wrapper.keep_warm()
        except driver_errors(wrapper.alias) as error:
            logger.warning("%s: cannot open the MIN_SIZE connections at the start: %s", wrapper.alias, error)
