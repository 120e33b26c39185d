"""The health of a database's connections, over the whole fleet: figures, alerts and one word."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS

from poolhouse.conf import options
from poolhouse.driver import postgresql_aliases, require_postgresql
from poolhouse.human import duration, percent
from poolhouse.overview.findings import PERIOD, Finding, graded, in_ms, in_percent, judge
from poolhouse.overview.observer import has_pooled_engine
from poolhouse.overview.status import Status, take_status
from poolhouse.process.activity import Activity
from poolhouse.process.pools import is_pooled
from poolhouse.servers.server import HIDDEN, ServerConnection

HEALTH_SCHEMA_VERSION = 2
WORDS = {"ok": "HEALTHY", "warning": "WARNING", "critical": "CRITICAL"}
# The pools' own, where the settings do not say.
NATIVE_MAX_LIFETIME_S = 3600
POOL_RECYCLE_S = 900


@dataclass(frozen=True)
class ConnectionPoolStats:
    """The figures of one look. What the server could not tell is None or empty; what no process told is None."""

    alias: str
    database: str
    taken_at: float
    """seconds since the epoch"""
    connection_max_age_s: float | None
    """after which a connection is replaced, by this process' settings; None: never, 0: after each request"""
    max_connections: int | None
    """that the server has for ordinary roles: the usable ones"""
    connections: tuple[ServerConnection, ...]
    """open on the server, whoever holds them, the monitor's own aside: those that work first, then the oldest"""
    total: Activity | None
    """what the reporting processes have done on this alias since each began"""
    recent: Activity | None
    """the same, of the last `poolhouse.process.activity.RECENT_S`"""

    @property
    def active_connections(self) -> int | None:
        """How many are open."""
        return None if self.max_connections is None else len(self.connections)

    @property
    def utilisation(self) -> float | None:
        """Open ones, as a share of the usable."""
        return self._share(len(self.connections))

    @cached_property
    def idle(self) -> list[ServerConnection] | None:
        """Those that do nothing, and have no transaction; None: the server hides what some of them do."""
        if self.max_connections is None or any(one.state == HIDDEN for one in self.connections):
            return None
        return [one for one in self.connections if one.state == "idle"]

    @property
    def idle_share(self) -> float | None:
        """Idle ones, as a share of the usable: the room that is taken for nothing."""
        return None if self.idle is None else self._share(len(self.idle))

    @property
    def idle_long(self) -> list[ServerConnection] | None:
        """Those that have been idle for longer than POOLHOUSE["IDLE_LONG_S"]."""
        if self.idle is None:
            return None
        return [one for one in self.idle if (one.state_age_s or 0) > options().IDLE_LONG_S]

    @property
    def oldest(self) -> ServerConnection | None:
        """The connection that has been open for longest; None: there is none, or the server hides it."""
        known = [one for one in self.connections if one.age_s is not None]
        return max(known, key=lambda one: one.age_s or 0, default=None)

    def _share(self, count: int) -> float | None:
        return None if self.max_connections is None else count / max(1, self.max_connections)


@dataclass(frozen=True)
class ConnectionPoolHealth:
    """The figures, and what is to be said of them."""

    stats: ConnectionPoolStats
    alerts: tuple[Finding, ...]
    """the worst first"""

    @property
    def level(self) -> str:
        """The worst of the alerts: ok, warning or critical."""
        return self.alerts[0].level if self.alerts else "ok"

    @property
    def status(self) -> str:
        """HEALTHY, WARNING or CRITICAL."""
        return WORDS[self.level]

    def as_document(self) -> dict[str, Any]:
        """The health as JSON data; its shape is described in docs/poolhouse.md and numbered by `schema`."""
        stats = self.stats
        return {
            "schema": HEALTH_SCHEMA_VERSION,
            "status": self.status,
            "taken_at": stats.taken_at,
            "alias": stats.alias,
            "database": stats.database,
            "connection_max_age_s": stats.connection_max_age_s,
            "active_connections": stats.active_connections,
            "max_connections": stats.max_connections,
            "utilisation_percent": _percent(stats.utilisation),
            "backend_pid": stats.oldest and stats.oldest.pid,
            "connection_age_s": stats.oldest and stats.oldest.age_s,
            "idle_connections": _count(stats.idle),
            "idle_percent": _percent(stats.idle_share),
            "idle_long_connections": _count(stats.idle_long),
            "queries": _queries_document(stats.total),
            "recent_queries": _queries_document(stats.recent),
            "alerts": [alert._asdict() for alert in self.alerts],
            "connections": [vars(one) for one in stats.connections],
        }


class ConnectionPoolMonitor:
    """Looks at the connections of one database alias: at the server's, and at what the processes report.

    Args:
        alias: of a PostgreSQL database; None: the default one, or the first that there is.

    Raises:
        KeyError: there is no such PostgreSQL alias.
    """

    def __init__(self, alias: str | None = None) -> None:
        self.alias = alias or next(iter(postgresql_aliases()), DEFAULT_DB_ALIAS)
        require_postgresql(self.alias)

    def stats(self) -> ConnectionPoolStats:
        """Take a look, and give the figures; never raises for a source that is away."""
        return self._stats_of(self._look())

    def health(self) -> ConnectionPoolHealth:
        """Take a look, and judge: by the thresholds of POOLHOUSE, and by what db_pool_status finds."""
        status = self._look()
        stats = self._stats_of(status)
        return ConnectionPoolHealth(stats, tuple(judge([*status.findings(), *_alerts(stats)])))

    def _look(self) -> Status:
        return take_status(self.alias, detailed=False)

    def _stats_of(self, status: Status) -> ConnectionPoolStats:
        database = settings.DATABASES[self.alias]
        is_told = bool(status.processes)
        return ConnectionPoolStats(
            alias=self.alias,
            database=database.get("NAME") or "",
            taken_at=status.taken_at,
            connection_max_age_s=connection_max_age_s(database),
            max_connections=status.server.capacity.usable if status.server else None,
            connections=tuple(sorted(status.connections, key=lambda one: (one.state == "idle", -(one.age_s or 0)))),
            total=status.fleet.activity(self.alias) if is_told else None,
            recent=status.fleet.recent(self.alias) if is_told else None,
        )


def get_connection_pool_health(alias: str | None = None) -> dict[str, Any]:
    """Give the health of an alias as JSON data, for a health check or a dashboard.

    Raises:
        KeyError: there is no such PostgreSQL alias.
    """
    return ConnectionPoolMonitor(alias).health().as_document()


def connection_max_age_s(database: dict[str, Any]) -> float | None:
    """Give the age at which a connection is replaced, by an alias' settings; None: at none, 0: after each request."""
    age_s: float | None
    if native := database.get("OPTIONS", {}).get("pool"):
        age_s = (native if isinstance(native, dict) else {}).get("max_lifetime", NATIVE_MAX_LIFETIME_S)
    elif has_pooled_engine(database) or is_pooled(database):
        age_s = database.get("POOL_OPTIONS", {}).get("RECYCLE", POOL_RECYCLE_S)
    else:
        age_s = database.get("CONN_MAX_AGE", 0)
    return None if age_s is None or age_s < 0 or math.isinf(age_s) else age_s


def _alerts(stats: ConnectionPoolStats) -> Iterator[Finding]:
    chosen = options()
    if stats.recent and stats.recent.statements.count >= max(1, chosen.SAMPLE_MIN):
        mean_s, error_share = stats.recent.statements.mean_s or 0, stats.recent.error_share or 0
        yield graded(
            f"mean query time is {duration(mean_s)} {PERIOD}",
            mean_s * 1000,
            chosen.QUERY_WARNING_MS,
            chosen.QUERY_CRITICAL_MS,
            unit=in_ms,
            remedy="look for slow statements in the logs of the services",
        )
        yield graded(
            f"{percent(error_share)} of the queries failed {PERIOD}",
            error_share * 100,
            chosen.ERRORS_WARNING_PERCENT,
            chosen.ERRORS_CRITICAL_PERCENT,
            unit=in_percent,
            remedy="the logs of the services have the errors",
        )
    if stats.idle is not None and stats.idle_share is not None:
        yield graded(
            f"{len(stats.idle)} of the {stats.max_connections} usable server connections are idle, "
            f"{percent(stats.idle_share)}",
            stats.idle_share * 100,
            chosen.IDLE_WARNING_PERCENT,
            unit=in_percent,
            remedy="lower POOL_SIZE or MIN_SIZE, or run fewer processes",
        )


def _queries_document(activity: Activity | None) -> dict[str, Any] | None:
    if activity is None:
        return None
    error_percent = _percent(activity.error_share)
    return {**activity.statements.summary(), "errors": activity.errors, "error_percent": error_percent}


def _count(connections: list[ServerConnection] | None) -> int | None:
    return None if connections is None else len(connections)


def _percent(share: float | None) -> float | None:
    return None if share is None else round(share * 100, 2)
