"""The app's settings: the dictionary POOLHOUSE in a project's settings, each key with a type and a default."""

import re
from dataclasses import dataclass, field, fields
from functools import cache

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


@dataclass(frozen=True)
class Options:
    """What a project may set in POOLHOUSE."""

    SERVICE: str = "django"
    """What this process is to its operators: web, worker, beat, …"""
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
    MONITOR_TIMEOUT_S: int = 2
    """How long the monitor waits for a source before it calls it unreachable."""
    MONITOR_USER: str = ""
    """The role that asks the server; empty: the database alias' own. A full server still lets in one that has
    pg_use_reserved_connections."""
    MONITOR_PASSWORD: str = ""
    PGBOUNCER_URL: str = ""
    """PgBouncer's console, postgresql://user:password@host:port/pgbouncer, of one of its stats_users; empty: it is not
    asked."""
    METRICS_MAX_AGE_S: float = 1.0
    """How long a process answers Prometheus with what it saw last, before it looks again."""
    UTILISATION_WARNING_PERCENT: float = 80.0
    """Of the server's usable connections, how many are open; from here on it is a warning. So with those below."""
    UTILISATION_CRITICAL_PERCENT: float = 95.0
    QUERY_WARNING_MS: float = 100.0
    """A statement's mean time of late."""
    QUERY_CRITICAL_MS: float = 500.0
    ERRORS_WARNING_PERCENT: float = 1.0
    """Of the statements of late, how many failed."""
    ERRORS_CRITICAL_PERCENT: float = 5.0
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
        ImproperlyConfigured: a key is unknown, reports would expire between two of them, the monitor would not wait,
            FLEET has something else than numbers, or a critical threshold is below its warning.

    """
    given = getattr(settings, "POOLHOUSE", {})
    known = {one.name for one in fields(Options)}
    if unknown := sorted(set(given) - known):
        raise ImproperlyConfigured(f"POOLHOUSE has unknown keys {unknown}; allowed: {sorted(known)}.")
    read = Options(**given)
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,24}", read.SERVICE):
        raise ImproperlyConfigured(
            f"POOLHOUSE: SERVICE={read.SERVICE!r} must be 1 to 24 letters, digits, dots, dashes or underscores: "
            "it begins each connection's application_name."
        )
    if read.REPORT_TTL_S <= read.PUBLISH_INTERVAL_S:
        raise ImproperlyConfigured(
            f"POOLHOUSE: REPORT_TTL_S={read.REPORT_TTL_S} must be more than "
            f"PUBLISH_INTERVAL_S={read.PUBLISH_INTERVAL_S}, or reports expire before the next one."
        )
    if read.MONITOR_TIMEOUT_S < 1:
        raise ImproperlyConfigured(
            f"POOLHOUSE: MONITOR_TIMEOUT_S={read.MONITOR_TIMEOUT_S} must be 1 or more: libpq takes less for no bound."
        )
    for service, numbers in read.FLEET.items():
        if not isinstance(numbers, tuple | list) or [type(number) for number in numbers] != [int, int]:
            raise ImproperlyConfigured(
                f"POOLHOUSE: FLEET[{service!r}]={numbers!r} must be two whole numbers: "
                "how many processes there are, and how many connections each can open."
            )
    for critical in (name for name in known if "_CRITICAL_" in name):
        warning = critical.replace("_CRITICAL_", "_WARNING_")
        if getattr(read, critical) < getattr(read, warning):
            raise ImproperlyConfigured(
                f"POOLHOUSE: {critical}={getattr(read, critical)} must not be less than "
                f"{warning}={getattr(read, warning)}: what is critical is a warning as well."
            )
    return read
