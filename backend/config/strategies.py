"""The strategies: how a service keeps its connections. One row each: engine, driver, what it needs and what it breaks.

A row has two parts: a keeper, which is how a process keeps its connections, and optionally PgBouncer behind it, in one
of its pool modes. What breaks with a part breaks in every row that has it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any, Literal

POOLED_ENGINE = "poolhouse.engines.postgresql"
PLAIN_POOLED_ENGINE = "dj_db_conn_pool.backends.postgresql"
STANDARD_ENGINE = "django.db.backends.postgresql"

PoolMode = Literal["session", "transaction", "statement"]


class Feature(StrEnum):
    """A feature of PostgreSQL's sessions that some strategies break; the value is its name in documents."""

    ATOMIC = "`atomic()`"
    CURSORS = "server-side cursors"
    SETTINGS = "`SET`"
    ISOLATION = "a clean session for each request"
    ADVISORY_LOCKS = "session advisory locks"
    LISTEN = "`LISTEN`"
    TEMPORARY_TABLES = "temporary tables"
    PREPARE = "`PREPARE`"
    PREPARED_STATEMENTS = "the driver's prepared statements"
    STARTUP_OPTIONS = '`OPTIONS["options"]`'


@dataclass(frozen=True)
class Numbers:
    """The numbers that configure a keeper."""

    size: int
    overflow: int
    least: int
    recycle_s: int
    timeout_s: float
    max_age_s: int
    health_checks: bool


@dataclass(frozen=True)
class Strategy:
    """How a service keeps its connections."""

    keeper: str
    """the name of the row without PgBouncer"""
    engine: str
    driver: str
    """psycopg2, or psycopg for psycopg 3"""
    settings: Callable[[Numbers], dict[str, Any]]
    """returns the settings of DATABASES other than the engine and the server"""
    is_bounded: bool
    """True if the threads of a process share a limited number of connections; otherwise each thread has its own"""
    needs: str
    """what it keeps and needs, as documents say it"""
    breaks: frozenset[Feature] = frozenset()
    pool_mode: PoolMode | None = None
    """of PgBouncer; None: connects directly to the server"""

    @property
    def name(self) -> str:
        """Return the value of DB_POOL_STRATEGY that selects it."""
        if self.pool_mode is None:
            return self.keeper
        return _name_behind(self.pool_mode, self.keeper)


def _name_behind(mode: PoolMode, keeper: str) -> str:
    return f"pgbouncer-{mode}" if keeper == "none" else f"pgbouncer-{mode}+{keeper}"


# The keepers.


def _none(_: Numbers) -> dict[str, Any]:
    return {"CONN_MAX_AGE": 0}


def _persistent(numbers: Numbers) -> dict[str, Any]:
    return {"CONN_MAX_AGE": numbers.max_age_s, "CONN_HEALTH_CHECKS": numbers.health_checks}


def _plain_pooled(numbers: Numbers) -> dict[str, Any]:
    return {
        # With any other value, every thread would keep one of the pool's connections checked out.
        "CONN_MAX_AGE": 0,
        "POOL_OPTIONS": {
            "POOL_SIZE": numbers.size,
            "MAX_OVERFLOW": numbers.overflow,
            "RECYCLE": numbers.recycle_s,
            "TIMEOUT": numbers.timeout_s,
            "PRE_PING": numbers.health_checks,
        },
    }


def _pooled(numbers: Numbers) -> dict[str, Any]:
    made = _plain_pooled(numbers)
    made["POOL_OPTIONS"]["MIN_SIZE"] = numbers.least
    return made


def _native(numbers: Numbers) -> dict[str, Any]:
    pool = {
        "min_size": numbers.least,
        "max_size": numbers.size + numbers.overflow,
        "timeout": numbers.timeout_s,
        "max_lifetime": float("inf") if numbers.recycle_s < 0 else numbers.recycle_s,
    }
    return {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": numbers.health_checks, "OPTIONS": {"pool": pool}}


# psycopg2 uses only the simple query protocol, which cannot prepare statements.
_PSYCOPG2 = frozenset({Feature.PREPARED_STATEMENTS})
# A connection goes from one request to the next without a reset of its session state.
_KEPT_AS_IT_IS = frozenset({Feature.ISOLATION})

KEEPERS: Mapping[str, Strategy] = {
    row.keeper: row
    for row in (
        Strategy("none", STANDARD_ENGINE, "psycopg2", _none, False, "a connection for each request", _PSYCOPG2),
        Strategy(
            "persistent",
            STANDARD_ENGINE,
            "psycopg2",
            _persistent,
            False,
            "a connection for each thread",
            _PSYCOPG2 | _KEPT_AS_IT_IS,
        ),
        Strategy("queuepool", POOLED_ENGINE, "psycopg2", _pooled, True, "this project's engine", _PSYCOPG2),
        Strategy(
            "dj_db_conn_pool",
            PLAIN_POOLED_ENGINE,
            "psycopg2",
            _plain_pooled,
            True,
            "django-db-connection-pool, as it is published",
            _PSYCOPG2 | _KEPT_AS_IT_IS,
        ),
        Strategy("native", STANDARD_ENGINE, "psycopg", _native, True, "psycopg 3 and psycopg_pool", _KEPT_AS_IT_IS),
    )
}


# The keepers with PgBouncer behind them.

# PgBouncer cannot pass a client's startup options to a server connection that is already open.
_SESSION = frozenset({Feature.STARTUP_OPTIONS})
# The next transaction may get another server connection, and another client this one, without a reset.
_TRANSACTION = _SESSION | {
    Feature.CURSORS,
    Feature.SETTINGS,
    Feature.ISOLATION,
    Feature.ADVISORY_LOCKS,
    Feature.LISTEN,
    Feature.TEMPORARY_TABLES,
    Feature.PREPARE,
}
BROKEN_BY_MODE: Mapping[PoolMode, frozenset[Feature]] = {
    "session": _SESSION,
    "transaction": _TRANSACTION,
    "statement": _TRANSACTION | {Feature.ATOMIC},
}


def _behind(mode: PoolMode, keeper: Strategy) -> Strategy:
    """Return the keeper with PgBouncer behind it."""
    return replace(
        keeper,
        pool_mode=mode,
        settings=partial(_settings_behind, mode, keeper.settings),
        needs=f"PgBouncer; {keeper.needs} to it",
        breaks=keeper.breaks | BROKEN_BY_MODE[mode],
    )


def _settings_behind(mode: PoolMode, keep: Callable[[Numbers], dict[str, Any]], numbers: Numbers) -> dict[str, Any]:
    made = keep(numbers)
    if mode != "session":
        made["DISABLE_SERVER_SIDE_CURSORS"] = True
        if "MIN_SIZE" in made.get("POOL_OPTIONS", {}):
            # A reset would reach any server connection that PgBouncer picks, not the one that the request has used.
            made["POOL_OPTIONS"]["RESET"] = "never"
    return made


_BEHIND: tuple[tuple[PoolMode, tuple[str, ...]], ...] = (
    ("session", ("none", "persistent")),
    ("transaction", ("none", "persistent", "queuepool", "native")),
    ("statement", ("none", "persistent")),
)

STRATEGIES: Mapping[str, Strategy] = {
    **KEEPERS,
    **{_name_behind(mode, keeper): _behind(mode, KEEPERS[keeper]) for mode, keepers in _BEHIND for keeper in keepers},
}


def behind_pgbouncer(keeper: str, mode: PoolMode = "transaction") -> str | None:
    """Return the name of the row that puts PgBouncer behind a keeper, or None."""
    name = _name_behind(mode, keeper)
    return name if name in STRATEGIES else None


def as_table() -> str:
    """Return the table for docs/configuration.md."""
    lines = ["| `DB_POOL_STRATEGY` | Driver | What it keeps, and needs | What it breaks |", "| --- | --- | --- | --- |"]
    for name, row in STRATEGIES.items():
        driver = "psycopg 3" if row.driver == "psycopg" else row.driver
        broken = ", ".join(feature.value for feature in Feature if feature in row.breaks)
        lines.append(f"| `{name}` | {driver} | {row.needs} | {broken} |")
    return "\n".join(lines)
