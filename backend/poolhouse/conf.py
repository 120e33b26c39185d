"""The app's settings: the dictionary POOLHOUSE in a project's settings, each key with a type and a default."""

import re
from dataclasses import dataclass, fields
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
    MONITOR_TIMEOUT_S: int = 2
    """How long the monitor waits for a source before it calls it unreachable."""


@cache
def options() -> Options:
    """Read POOLHOUSE.

    Raises:
        ImproperlyConfigured: a key is unknown, or reports would expire between two of them.

    """
    given = getattr(settings, "POOLHOUSE", {})
    known = {field.name for field in fields(Options)}
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
    return read
