"""Validation of POOLHOUSE: the type and range of each key, and the keys that depend on each other."""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import Field, fields
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

INFINITE = math.inf
# Other numbers are 0 or more, and percentages at most 100. Timeouts and lifetimes must be finite.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "PUBLISH_INTERVAL_S": (0.1, 86_400),
    "REPORT_TTL_S": (0.1, 7 * 86_400),
    "MONITOR_TIMEOUT_S": (1, 600),  # libpq treats smaller values as no timeout
    "METRICS_MAX_AGE_S": (0, 3600),
    # -1 turns these off.
    "SLOW_QUERY_MS": (-1, INFINITE),
    "REQUEST_QUERIES": (-1, INFINITE),
    "SLOW_REQUEST_DATABASE_MS": (-1, INFINITE),
    "POOL_WAIT_MS": (-1, INFINITE),
    "POOL_HOLD_MS": (-1, INFINITE),
}
SCHEMES: Mapping[str, tuple[str, ...]] = {
    "REDIS_URL": ("redis", "rediss", "unix"),
    "PGBOUNCER_URL": ("postgresql", "postgres"),
}


def problems(kind: type, given: Any, aliases: Collection[str]) -> list[str]:
    """Return what is wrong, each with the key, its value and what is allowed.

    Args:
        kind: the dataclass of the keys, their types and defaults.
        given: the project's setting.
        aliases: those of DATABASES.
    """
    if not isinstance(given, Mapping):
        return [f"expected a dictionary, got {given!r}"]
    keys = {key.name: key for key in fields(kind)}
    found = [_unknown(key, keys) for key in given if key not in keys]
    found += [
        problem for name, key in keys.items() if name in given and (problem := _problem_with(key, name, given[name]))
    ]
    if found:
        return found
    return [*_conflicts(vars(kind(**given)), aliases)]


def _unknown(key: Any, keys: Collection[str]) -> str:
    near = get_close_matches(str(key).upper(), keys, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(sorted(keys))}"
    return f"unknown key {key!r}; {hint}"


def _problem_with(key: Field[Any], name: str, value: Any) -> str | None:
    if key.type is bool:
        return None if isinstance(value, bool) else f"{name}: expected True or False, got {value!r}"
    if key.type in (int, float):
        return _problem_with_number(name, value, whole=key.type is int)
    if key.type is str:
        return _problem_with_text(name, value)
    return None if isinstance(value, Mapping) else f"{name}: expected a dictionary, got {value!r}"


def _problem_with_number(name: str, value: Any, *, whole: bool) -> str | None:
    least, most = BOUNDS.get(name, (0, 100 if name.endswith("_PERCENT") else INFINITE))
    is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if is_number and least <= value <= most:
        return None
    allowed = f", {least:g} or more" if most == INFINITE else f" from {least:g} to {most:g}"
    return f"{name}: expected a {'whole ' if whole else ''}number{allowed}, got {value!r}"


def _problem_with_text(name: str, value: Any) -> str | None:
    if not isinstance(value, str):
        shown = "" if "PASSWORD" in name else f" {value!r}"
        return f"{name}: expected a string, got {type(value).__name__}{shown}"
    if name == "SERVICE" and value and not re.fullmatch(r"[A-Za-z0-9_.-]{1,24}", value):
        return (
            f"SERVICE: expected 1 to 24 letters, digits, dots, dashes or underscores, got {value!r}; "
            "each application_name begins with it"
        )
    if name in SCHEMES and value and not _is_url(value, SCHEMES[name]):
        _, at, address = value.rpartition("@")
        shown = f"…@{address}" if at else value  # the part before the @ may be a password
        schemes = " or ".join(f"{one}://" for one in SCHEMES[name])
        return f"{name}: expected a URL that begins with {schemes}, got {shown!r}"
    return None


def _is_url(value: str, schemes: tuple[str, ...]) -> bool:
    try:
        url = urlsplit(value)
        return url.scheme in schemes and value.startswith(f"{url.scheme}://") and url.port != 0
    except ValueError:  # the port is not a number
        return False


def _conflicts(read: Mapping[str, Any], aliases: Collection[str]) -> Iterator[str]:
    if read["REPORT_TTL_S"] <= read["PUBLISH_INTERVAL_S"]:
        yield (
            f"REPORT_TTL_S={read['REPORT_TTL_S']} must be greater than "
            f"PUBLISH_INTERVAL_S={read['PUBLISH_INTERVAL_S']}: otherwise a report expires before the next one"
        )
    for service, numbers in read["FLEET"].items():
        if not _is_pair(numbers):
            yield (
                f"FLEET[{service!r}]: expected two whole numbers, 0 or more (the processes, and the connections that "
                f"each can open), got {numbers!r}"
            )
    if strangers := [alias for alias in read["DIRECT"] if alias not in aliases]:
        yield f"DIRECT: expected aliases of DATABASES, got {strangers}; allowed: {sorted(aliases)}"
    for alias, changes in read["DIRECT"].items():
        if not isinstance(changes, Mapping):
            yield f"DIRECT[{alias!r}]: expected a dictionary like DATABASES[{alias!r}], got {changes!r}"
    for critical in sorted(name for name in read if "_CRITICAL_" in name):
        warning = critical.replace("_CRITICAL_", "_WARNING_")
        if read[critical] < read[warning]:
            yield (
                f"{critical}={read[critical]} must be {warning}={read[warning]} or more: "
                "a warning comes before a critical finding"
            )


def _is_pair(numbers: Any) -> bool:
    return (
        isinstance(numbers, tuple | list)
        and [type(number) for number in numbers] == [int, int]
        and all(number >= 0 for number in numbers)
    )
