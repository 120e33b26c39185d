"""Requests and tasks that have too much of the database, or none: the lines that an operator looks for."""

import logging
from traceback import walk_tb

from django.db import InterfaceError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from poolhouse.conf import options
from poolhouse.errors import PoolTimeoutError
from poolhouse.tracing.masks import words_of
from poolhouse.tracing.work import Work

logger = logging.getLogger(__name__)


def log_cost(work: Work) -> None:
    """Log what a request or task has had of the database, if any of it is over its threshold."""
    database_ms, wait_ms, hold_ms = work.database_s * 1000, work.wait_s * 1000, work.held_s() * 1000
    if is_costly(work.statement_count, database_ms, wait_ms, hold_ms):
        logger.warning(
            "costly %s: %s in %.0f ms; waited %.0f ms for a connection, held one for %.0f ms",
            work.label,
            queries(work.statement_count),
            database_ms,
            wait_ms,
            hold_ms,
            extra={
                "work": str(work),
                "view": work.view,
                "queries": work.statement_count,
                "database_ms": round(database_ms, 1),
                "wait_ms": round(wait_ms, 1),
                "hold_ms": round(hold_ms, 1),
            },
        )


def is_costly(
    statements: int, database_ms: float, wait_ms: float, hold_ms: float, *, slow_ms: float | None = None
) -> bool:
    """Say whether any of these is over its threshold; slow_ms is in place of SLOW_REQUEST_DATABASE_MS."""
    limits = options()
    return (
        0 <= limits.REQUEST_QUERIES < statements
        or 0 <= (limits.SLOW_REQUEST_DATABASE_MS if slow_ms is None else slow_ms) < database_ms
        or 0 <= limits.POOL_WAIT_MS < wait_ms
        or 0 <= limits.POOL_HOLD_MS < hold_ms
    )


def log_database_error(error: BaseException | None, work: Work | None) -> None:
    """Log an error that tells of the database or the way to it, and not of a statement; others are passed over."""
    if not isinstance(error, OperationalError | InterfaceError):
        return
    alias, sqlstate = alias_of(error), sqlstate_of(error)
    logger.error(
        "database %s failed %s: %s: %s",
        alias or "(unknown)",
        work.label if work else "(unknown work)",
        f"{type(error).__name__} {sqlstate}".rstrip(),
        words_of(error),
        extra={
            "alias": alias,
            "error": type(error).__name__,
            "sqlstate": sqlstate,
            **({"work": str(work), "view": work.view} if work else {}),
        },
    )


def alias_of(error: BaseException) -> str:
    """Give the alias that an error came from; empty if that cannot be told."""
    if isinstance(error, PoolTimeoutError):
        return error.alias
    alias = ""
    for frame, _ in walk_tb(error.__traceback__):  # Django's own frames know it; the innermost counts
        match frame.f_locals.get("self"):
            case BaseDatabaseWrapper(alias=str(found)) | CursorWrapper(db=BaseDatabaseWrapper(alias=str(found))):
                alias = found
    return alias


def sqlstate_of(error: BaseException) -> str:
    """Give the server's code for an error; empty if the server was not reached."""
    cause = error.__cause__
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""


def queries(count: int) -> str:
    """Count them in words."""
    return "1 query" if count == 1 else f"{count} queries"
