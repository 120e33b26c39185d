"""The log lines about costly requests and tasks, and about database errors."""

import logging
from collections.abc import Iterable
from traceback import walk_tb
from typing import cast

from django.db import InterfaceError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.utils import DatabaseErrorWrapper

from poolhouse.conf import options
from poolhouse.driver import postgresql_aliases
from poolhouse.errors import PoolTimeoutError
from poolhouse.tracing.masks import DRIVERS, masked_text
from poolhouse.tracing.work import Work

logger = logging.getLogger(__name__)


def log_cost(work: Work) -> None:
    """Log the database use of a request or task if any of it is over its threshold."""
    database_ms, wait_ms, hold_ms = work.database_s * 1000, work.wait_s * 1000, work.held_s() * 1000
    if is_costly(work.statement_count, database_ms, wait_ms, hold_ms):
        measured = {"wait_ms": round(wait_ms, 1), "hold_ms": round(hold_ms, 1)} if work.has_pool_times else {}
        logger.warning(
            "costly %s: %s in %.0f ms%s",
            work.label,
            queries(work.statement_count),
            database_ms,
            wait_and_hold(wait_ms, hold_ms) if measured else "",
            extra={
                "work": str(work),
                "view": work.view,
                "queries": work.statement_count,
                "database_ms": round(database_ms, 1),
                **measured,
            },
        )


def wait_and_hold(wait_ms: float, hold_ms: float) -> str:
    """Write the wait and hold times, to follow the statements' time."""
    return f"; wait {wait_ms:.0f} ms, hold {hold_ms:.0f} ms"


def is_costly(
    statements: int, database_ms: float, wait_ms: float, hold_ms: float, *, slow_ms: float | None = None
) -> bool:
    """Return True if any value is over its threshold; slow_ms replaces SLOW_REQUEST_DATABASE_MS."""
    limits = options()
    return (
        0 <= limits.REQUEST_QUERIES < statements
        or 0 <= (limits.SLOW_REQUEST_DATABASE_MS if slow_ms is None else slow_ms) < database_ms
        or 0 <= limits.POOL_WAIT_MS < wait_ms
        or 0 <= limits.POOL_HOLD_MS < hold_ms
    )


def log_database_error(error: BaseException | None, work: Work | None) -> None:
    """Log an error of the database or the connection to it; errors of a statement are ignored.

    A request or task gets one line per alias: what its outer layers meet later is the same failure.
    """
    if error is None or not _is_failure(error):
        return
    alias, sqlstate = alias_of(error), sqlstate_of(error)
    if work is not None:
        if alias in work.failed_aliases:
            return
        work.failed_aliases += (alias,)
    logger.error(
        "database %s failed %s: %s: %s",
        alias or "(unknown)",
        work.label if work else "(unknown work)",
        f"{type(error).__name__} {sqlstate}".rstrip(),
        masked_text(error),
        extra={
            "alias": alias,
            "error": type(error).__name__,
            "sqlstate": sqlstate,
            **({"work": str(work), "view": work.view} if work else {}),
        },
    )


def _is_failure(error: BaseException) -> bool:
    """Return True for errors of this kind, Django's or the driver's.

    COPY is the driver's own, as is everything done with its cursor or connection: Django does not wrap those errors.
    """
    names = {kind.__name__ for kind in type(error).__mro__ if kind.__module__.partition(".")[0] in DRIVERS}
    return isinstance(error, OperationalError | InterfaceError) or not names.isdisjoint(
        {"OperationalError", "InterfaceError"}
    )


def alias_of(error: BaseException) -> str:
    """Return the alias that an error came from; empty if unknown."""
    if isinstance(error, PoolTimeoutError):
        return error.alias
    found = ""
    for frame, _ in walk_tb(error.__traceback__):  # the innermost frame counts
        found = _alias_among(frame.f_locals.values()) or found
    return found or _only_alias()


def _alias_among(values: Iterable[object]) -> str:
    """Return the alias of the connection or cursor that a frame works with.

    The values are checked by type: isinstance would evaluate a lazy object such as `request.user`, which may query the
    database.
    """
    for value in values:
        kind = type(value)
        if issubclass(kind, DatabaseErrorWrapper):
            value = vars(value)["wrapper"]  # noqa: PLW2901 - the wrapper whose errors it wraps
        elif issubclass(kind, CursorWrapper):
            value = cast(CursorWrapper, value).db  # noqa: PLW2901
        if issubclass(type(value), BaseDatabaseWrapper):
            return cast(BaseDatabaseWrapper, value).alias
    return ""


def _only_alias() -> str:
    """Return the alias if the project has only one PostgreSQL database."""
    aliases = postgresql_aliases()
    return aliases[0] if len(aliases) == 1 else ""


def sqlstate_of(error: BaseException) -> str:
    """Return the error's SQLSTATE; empty if the server was not reached."""
    cause = error.__cause__ or error
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""


def queries(count: int) -> str:
    """Write a number of queries."""
    return "1 query" if count == 1 else f"{count} queries"
