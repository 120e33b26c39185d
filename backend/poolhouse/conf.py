"""The app's settings: the dictionary POOLHOUSE in a project's settings, each key with a type and a default."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from poolhouse.conf_problems import problems


@dataclass(frozen=True)
class Options:
    """What a project may set in POOLHOUSE."""

    SERVICE: str = ""
    """What this process is to its operators: web, worker, beat, …; empty: as `poolhouse.started` finds."""
    REDIS_URL: str = ""
    """Where processes report; empty: they do not, and the status says so."""
    KEY_PREFIX: str = "poolhouse"
    """Redis keys begin with it, so that several projects can share a server."""
    PUBLISH_INTERVAL_S: float = 1.0
    REPORT_TTL_S: float = 5.0
    """How long a report outlives its process; longer than several intervals."""
    FLEET: dict[str, tuple[int, int]] = field(default_factory=dict)
    """How many processes each service has, and how many connections each can open: `check --database` adds up."""
    LEAK_THRESHOLD_S: float = 0.0
    """A connection that is held for longer is logged with the stack that took it; 0: none is."""
    MONITOR_TIMEOUT_S: float = 2.0
    """How long the monitor waits for a source before it calls it unreachable."""
    MONITOR_USER: str = ""
    """The role that asks the server; empty: the database alias' own. A full server still lets in one that has
    pg_use_reserved_connections."""
    MONITOR_PASSWORD: str = ""
    DIRECT: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The server itself, of an alias that goes through PgBouncer: HOST, PORT, NAME and what else of DATABASES[alias] is
    another there. Who looks at the server, or works on it for long, goes past PgBouncer."""
    PGBOUNCER_URL: str = ""
    """PgBouncer's console, postgresql://user:password@host:port/pgbouncer, of one of its stats_users; empty: it is not
    asked."""
    PGBOUNCER_CONNECTIONS: int = 0
    """How many connections to the server PgBouncer opens at most; `check --database` adds them to those of FLEET."""
    METRICS_TOKEN: str = ""
    """What a reader of /metrics sends as Authorization: Bearer …; empty: whoever reaches the address may read."""
    METRICS_MAX_AGE_S: float = 1.0
    """How long a process answers Prometheus with what it saw last, before it looks again."""
    UTILISATION_WARNING_PERCENT: float = 80.0
    """Of the server's usable connections, how many are open; from here on it is a warning. So with those below."""
    UTILISATION_CRITICAL_PERCENT: float = 95.0
    WAIT_WARNING_MS: float = 250.0
    """p95 of the time that callers waited for a connection in the last 5 minutes; a timeout counts as a wait."""
    WAIT_CRITICAL_MS: float = 1000.0
    PGBOUNCER_WAIT_WARNING_S: float = 1.0
    """How long a client of PgBouncer's has waited for a server connection."""
    PGBOUNCER_WAIT_CRITICAL_S: float = 10.0
    BLOCKED_WARNING_S: float = 5.0
    """How long a session has waited for another's lock."""
    IDLE_IN_TRANSACTION_WARNING_S: float = 30.0
    """How long a session has kept a transaction, and its locks, and asked for nothing."""
    FLEET_GRACE_S: float = 15.0
    """How long a service of FLEET may be without any process that reports, as in a restart, until that is critical."""
    QUERY_WARNING_MS: float = 100.0
    """A statement's mean time of late."""
    QUERY_CRITICAL_MS: float = 500.0
    ERRORS_WARNING_PERCENT: float = 1.0
    """Of the statements of late, how many failed; a row that breaks a constraint is none."""
    ERRORS_CRITICAL_PERCENT: float = 5.0
    SAMPLE_MIN: int = 20
    """Of fewer statements, or loans, neither their times nor their errors are judged."""
    IDLE_WARNING_PERCENT: float = 50.0
    """Of the server's usable connections, how many are open and idle."""
    IDLE_LONG_S: float = 300.0
    """A connection that has been idle for longer is told apart."""
    SLOW_QUERY_MS: float = 1000.0
    """A statement of a request or a task that takes longer is logged; 0: each is, -1: none is."""
    SLOW_QUERY_INTERVAL_S: float = 10.0
    """How long the same slow statement is not logged again, but counted."""
    REQUEST_QUERIES: int = 100
    """A request or a task that has more statements is logged; -1: none is. So with the three below."""
    SLOW_REQUEST_DATABASE_MS: float = 1000.0
    """In statements."""
    POOL_WAIT_MS: float = 100.0
    """Waiting for a connection."""
    POOL_HOLD_MS: float = 5000.0
    """With a connection."""
    SERVER_TIMING: bool = False
    """Answers tell the browser's developer tools what they had of the database."""


@cache
def options() -> Options:
    """Read POOLHOUSE.

    Raises:
        ImproperlyConfigured: lists what is wrong.
    """
    given = getattr(settings, "POOLHOUSE", {})
    if found := problems(Options, given, settings.DATABASES):
        raise ImproperlyConfigured(f"POOLHOUSE: {'; '.join(found)}.")
    return Options(**given)
