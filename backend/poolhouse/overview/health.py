"""The health report of a database's connections over the whole fleet: figures, alerts and a status."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS

from poolhouse.conf import options
from poolhouse.driver import postgresql_aliases, require_postgresql
from poolhouse.formatting import duration, percent
from poolhouse.overview.findings import PERIOD, Finding, graded, in_ms, in_percent, judge
from poolhouse.overview.observer import has_pooled_engine
from poolhouse.overview.status import Status, take_status
from poolhouse.process.activity import Activity
from poolhouse.process.pools import is_pooled
from poolhouse.servers.server import HIDDEN, ServerConnection

HEALTH_SCHEMA_VERSION = 2
WORDS = {"ok": "HEALTHY", "warning": "WARNING", "critical": "CRITICAL"}
# The pools' own defaults.
NATIVE_MAX_LIFETIME_S = 3600
POOL_RECYCLE_S = 900


@dataclass(frozen=True)
class ConnectionPoolStats:
    """The figures of a health report. What the server or the processes did not report is None or empty."""

    alias: str
    database: str
    taken_at: float
    """seconds since the epoch"""
    connection_max_age_s: float | None
    """age at which a connection is replaced, by this process' settings; None: never, 0: after each request"""
    max_connections: int | None
    """usable by ordinary roles"""
    connections: tuple[ServerConnection, ...]
    """open on the server, without the monitor's own: active ones first, then by age"""
    total: Activity | None
    """activity of the reporting processes on this alias since each started"""
    recent: Activity | None
    """activity in the last `poolhouse.process.activity.RECENT_S`"""

    @property
    def active_connections(self) -> int | None:
        """The number of open connections."""
        return None if self.max_connections is None else len(self.connections)

    @property
    def utilisation(self) -> float | None:
        """Open connections as a share of the usable ones."""
        return self._share(len(self.connections))

    @cached_property
    def idle(self) -> list[ServerConnection] | None:
        """Idle connections without a transaction; None if the server hides the state of some of them."""
        if self.max_connections is None or any(one.state == HIDDEN for one in self.connections):
            return None
        return [one for one in self.connections if one.state == "idle"]

    @property
    def idle_share(self) -> float | None:
        """Idle connections as a share of the usable ones."""
        return None if self.idle is None else self._share(len(self.idle))

    @property
    def idle_long(self) -> list[ServerConnection] | None:
        """Connections that have been idle for longer than POOLHOUSE["IDLE_LONG_S"]."""
        if self.idle is None:
            return None
        return [one for one in self.idle if (one.state_age_s or 0) > options().IDLE_LONG_S]

    @property
    def oldest(self) -> ServerConnection | None:
        """The connection that has been open longest; None if there is none or the server hides it."""
        known = [one for one in self.connections if one.age_s is not None]
        return max(known, key=lambda one: one.age_s or 0, default=None)

    def _share(self, count: int) -> float | None:
        return None if self.max_connections is None else count / max(1, self.max_connections)


@dataclass(frozen=True)
class ConnectionPoolHealth:
    """The figures, and the findings that are not ok."""

    stats: ConnectionPoolStats
    alerts: tuple[Finding, ...]
    """the worst first"""

    @property
    def level(self) -> str:
        """The level of the worst alert: ok, warning or critical."""
        return self.alerts[0].level if self.alerts else "ok"

    @property
    def status(self) -> str:
        """The status word: HEALTHY, WARNING or CRITICAL."""
        return WORDS[self.level]

    def as_document(self) -> dict[str, Any]:
        """Return the health as JSON data; docs/app/json.md describes its shape, which `schema` numbers."""
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
    """Monitors the connections of one alias, on the server and in the processes' reports.

    Args:
        alias: of a PostgreSQL database; None: the default one, or else the first.

    Raises:
        KeyError: DATABASES has no PostgreSQL database with this alias.
    """

    def __init__(self, alias: str | None = None) -> None:
        self.alias = alias or next(iter(postgresql_aliases()), DEFAULT_DB_ALIAS)
        require_postgresql(self.alias)

    def stats(self) -> ConnectionPoolStats:
        """Query every source, and return the figures; a source that is unreachable raises no error."""
        return self._stats_of(self._look())

    def health(self) -> ConnectionPoolHealth:
        """Query every source, and judge by the thresholds of POOLHOUSE and the findings of db_pool_status."""
        status = self._look()
        stats = self._stats_of(status)
        return ConnectionPoolHealth(stats, tuple(judge([*status.findings(), *_alerts(stats)])))

    def _look(self) -> Status:
        return take_status(self.alias, detailed=False)

    def _stats_of(self, status: Status) -> ConnectionPoolStats:
        database = settings.DATABASES[self.alias]
        has_reports = bool(status.processes)
        return ConnectionPoolStats(
            alias=self.alias,
            database=database.get("NAME") or "",
            taken_at=status.taken_at,
            connection_max_age_s=connection_max_age_s(database),
            max_connections=status.server.capacity.usable if status.server else None,
            connections=tuple(sorted(status.connections, key=lambda one: (one.state == "idle", -(one.age_s or 0)))),
            total=status.fleet.activity(self.alias) if has_reports else None,
            recent=status.fleet.recent(self.alias) if has_reports else None,
        )


def get_connection_pool_health(alias: str | None = None) -> dict[str, Any]:
    """Return the health of an alias as JSON data, for a health check or a dashboard.

    Raises:
        KeyError: DATABASES has no PostgreSQL database with this alias.
    """
    return ConnectionPoolMonitor(alias).health().as_document()


def connection_max_age_s(database: dict[str, Any]) -> float | None:
    """Return the age at which an alias' connections are replaced; None: never, 0: after each request."""
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
