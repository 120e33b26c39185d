"""The app's settings: the dictionary POOLHOUSE in a project's settings, each key with a type and a default."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from poolhouse.conf_problems import problems


@dataclass(frozen=True)
class Options:
    """The keys of POOLHOUSE with their defaults."""

    SERVICE: str = ""
    """The service of this process: web, worker, beat, …; empty: as in `poolhouse.started`."""
    REDIS_URL: str = ""
    """The Redis server for the reports; empty: processes do not report."""
    KEY_PREFIX: str = "poolhouse"
    """The prefix of the Redis keys, so that several projects can share a server."""
    PUBLISH_INTERVAL_S: float = 1.0
    REPORT_TTL_S: float = 5.0
    """How long a report stays after its process has ended; longer than several intervals."""
    FLEET: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The processes of each service and the connections that each can open; `check --database` adds them up."""
    LEAK_THRESHOLD_S: float = 0.0
    """A connection held for longer is logged as a leak suspect with the stack that checked it out; 0: never."""
    MONITOR_TIMEOUT_S: float = 2.0
    """How long the monitor waits for a source before it reports the source as unreachable."""
    MONITOR_USER: str = ""
    """The role of the monitor; empty: the alias' own. A role with pg_use_reserved_connections can connect to a full
    server."""
    MONITOR_PASSWORD: str = ""
    DIRECT: dict[str, dict[str, Any]] = field(default_factory=dict)
    """For aliases that go through PgBouncer: the keys of DATABASES[alias] that lead to the server itself (HOST, PORT,
    NAME, …). The monitor and long operations use them."""
    PGBOUNCER_URL: str = ""
    """PgBouncer's console, postgresql://user:password@host:port/pgbouncer, as one of its stats_users; empty: not
    queried."""
    PGBOUNCER_CONNECTIONS: int = 0
    """The most server connections that PgBouncer opens; `check --database` adds them to those of FLEET."""
    METRICS_TOKEN: str = ""
    """The token that /metrics requires as Authorization: Bearer …; empty: no token is required."""
    METRICS_MAX_AGE_S: float = 1.0
    """How long a process answers Prometheus with its last result before it queries the sources again."""
    UTILISATION_WARNING_PERCENT: float = 80.0
    """Share of the server's usable connections that are open, from which on it is a warning. The others are alike."""
    UTILISATION_CRITICAL_PERCENT: float = 95.0
    WAIT_WARNING_MS: float = 250.0
    """p95 wait for a connection in the last 5 minutes; a pool timeout counts as a wait."""
    WAIT_CRITICAL_MS: float = 1000.0
    PGBOUNCER_WAIT_WARNING_S: float = 1.0
    """How long a client of PgBouncer has been waiting for a server connection."""
    PGBOUNCER_WAIT_CRITICAL_S: float = 10.0
    BLOCKED_WARNING_S: float = 5.0
    """How long a session has been waiting for a lock."""
    IDLE_IN_TRANSACTION_WARNING_S: float = 30.0
    """How long a session has been idle in a transaction."""
    FLEET_GRACE_S: float = 15.0
    """How long a service of FLEET may be without a reporting process, as in a restart, before that is critical."""
    QUERY_WARNING_MS: float = 100.0
    """Mean time of a statement in the last 5 minutes."""
    QUERY_CRITICAL_MS: float = 500.0
    ERRORS_WARNING_PERCENT: float = 1.0
    """Share of the statements that failed in the last 5 minutes, without violated constraints."""
    ERRORS_CRITICAL_PERCENT: float = 5.0
    SAMPLE_MIN: int = 20
    """Wait times, statement times and errors are judged from this many samples on."""
    IDLE_WARNING_PERCENT: float = 50.0
    """Share of the server's usable connections that are open and idle."""
    IDLE_LONG_S: float = 300.0
    """Connections that have been idle for longer are counted separately."""
    SLOW_QUERY_MS: float = 1000.0
    """A statement of a request or a task that takes longer is logged; 0: all are, -1: none is."""
    SLOW_QUERY_INTERVAL_S: float = 10.0
    """How long a slow statement that was logged is counted instead of logged again."""
    REQUEST_QUERIES: int = 100
    """A request or a task with more statements is logged; -1: never. The next three are alike."""
    SLOW_REQUEST_DATABASE_MS: float = 1000.0
    """Time in statements."""
    POOL_WAIT_MS: float = 100.0
    """Time waiting for a connection."""
    POOL_HOLD_MS: float = 5000.0
    """Time with a connection."""
    SERVER_TIMING: bool = False
    """Add a Server-Timing header with the database time, for the browser's developer tools."""


@cache
def options() -> Options:
    """Return the settings in POOLHOUSE, validated.

    Raises:
        ImproperlyConfigured: POOLHOUSE is invalid; the text lists all problems.
    """
    given = getattr(settings, "POOLHOUSE", {})
    if found := problems(Options, given, settings.DATABASES):
        raise ImproperlyConfigured(f"POOLHOUSE: {'; '.join(found)}.")
    return Options(**given)
