"""POOL_OPTIONS: the keys of dj_db_conn_pool and of this engine, each with a type, a default and a range."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, Self, get_args

from django.core.exceptions import ImproperlyConfigured

Reset = Literal["seen", "always", "never"]


@dataclass(frozen=True)
class PoolOptions:
    """The keys of `DATABASES[alias]["POOL_OPTIONS"]`; the first six are dj_db_conn_pool's."""

    POOL_SIZE: int = 10
    """connections that the pool keeps open"""
    MAX_OVERFLOW: int = 10
    """connections that it may open above POOL_SIZE, closed at check-in; -1: any number"""
    TIMEOUT: float = 30.0
    """seconds until a caller has a connection or gets an error, including connecting and the pre-ping"""
    RECYCLE: int = 900
    """age in seconds at which a connection is replaced at its next checkout; -1: never"""
    PRE_PING: bool = True
    """ping a connection that has been idle for PING_IDLE_S before it is checked out"""
    ECHO: bool = False
    """log what SQLAlchemy's pool does"""
    PING_IDLE_S: float = 0.5
    """idle seconds from which on a connection is pinged; one that the server closed is noticed without a ping"""
    MIN_SIZE: int = 0
    """connections that are opened at the start and kept open"""
    USE_LIFO: bool = False
    """check out the connection that was checked in last, so that the others can be closed by age"""
    RESET: Reset = "seen"
    """when session state is reset at check-in: if a statement has left some ("seen"), always, or never"""

    @classmethod
    def of(cls, alias: str, given: Mapping[str, Any]) -> Self:
        """Return the options of an alias, validated.

        Raises:
            ImproperlyConfigured: POOL_OPTIONS is invalid; the text lists all problems.
        """
        if found := problems(given):
            raise ImproperlyConfigured(f"DATABASES[{alias!r}]['POOL_OPTIONS']: {'; '.join(found)}")
        return cls(**given)


NAMES = tuple(field.name for field in fields(PoolOptions))
LEAST = {"POOL_SIZE": 1, "MAX_OVERFLOW": -1, "RECYCLE": -1, "PING_IDLE_S": 0, "MIN_SIZE": 0}


def problems(given: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with POOL_OPTIONS, each with the key, its value and what is allowed."""
    found = [_unknown(key) for key in given if key not in NAMES]
    known = {key: value for key, value in given.items() if key in NAMES}
    found += [problem for key, value in known.items() if (problem := _problem_with(key, value))]
    size = known.get("POOL_SIZE", PoolOptions.POOL_SIZE)
    if not found and known.get("MIN_SIZE", 0) > size:
        found.append(f"MIN_SIZE={known['MIN_SIZE']} must be POOL_SIZE={size} or less")
    return found


def _unknown(key: str) -> str:
    near = get_close_matches(key.upper(), NAMES, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(NAMES)}"
    return f"unknown key {key!r}; {hint}"


def _problem_with(key: str, value: Any) -> str | None:
    default = getattr(PoolOptions, key)
    if key == "RESET":
        allowed = get_args(Reset)
        return None if value in allowed else f"RESET: expected one of {', '.join(allowed)}, got {value!r}"
    if isinstance(default, bool):
        return None if isinstance(value, bool) else f"{key}: expected True or False, got {value!r}"
    kinds = (int, float) if isinstance(default, float) else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds):
        return f"{key}: expected a {'number' if float in kinds else 'whole number'}, got {value!r}"
    if key == "TIMEOUT":  # it includes connecting, for which 0 s would never suffice
        return None if value > 0 else f"TIMEOUT: expected a number greater than 0, got {value!r}"
    return None if value >= LEAST[key] else f"{key}: expected {LEAST[key]} or more, got {value!r}"
