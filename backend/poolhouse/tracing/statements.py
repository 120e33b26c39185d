"""Timing of statements, for the request or task that runs them, and the log lines of slow ones."""

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from django.db import IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper

from poolhouse.conf import options
from poolhouse.measures.statement_meter import meter
from poolhouse.tracing.code import is_own_code
from poolhouse.tracing.sql import without_values
from poolhouse.tracing.throttle import HeldBack, Throttle
from poolhouse.tracing.work import Work, current_work

logger = logging.getLogger(__name__)

_slow = Throttle()


def forget_parent() -> None:
    """Start afresh in a forked child; another thread of the parent may have held the lock."""
    global _slow  # noqa: PLW0603 - one per process, made again in each child
    _slow = Throttle()


os.register_at_fork(after_in_child=forget_parent)


def time_statements(connection: BaseDatabaseWrapper) -> None:
    """Time a connection's statements from now on."""
    if _timed not in connection.execute_wrappers:
        # The first wrapper is the outermost; and Django removes the last one when another wrapper ends.
        connection.execute_wrappers.insert(0, _timed)


def _timed(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Run a statement; count it, and add it to the current work, whether it succeeds or fails."""
    work = current_work()
    failed = True
    began_at = time.perf_counter()
    try:
        answer = execute(sql, params, many, context)
        failed = False
        return answer
    except IntegrityError:  # a violated constraint is an answer, which get_or_create may expect
        failed = False
        raise
    finally:
        duration_s = time.perf_counter() - began_at
        meter().note(context["connection"].alias, duration_s, failed=failed)
        if work is not None:
            work.statement_count += 1
            work.database_s += duration_s
            if 0 <= options().SLOW_QUERY_MS < duration_s * 1000:
                _log_slow(work, sql, duration_s, context)


def _log_slow(work: Work, sql: Any, duration_s: float, context: dict[str, Any]) -> None:
    shape = without_values(_as_text(sql, context["cursor"].cursor))
    held = _slow.admit(shape, now_s=time.monotonic(), interval_s=options().SLOW_QUERY_INTERVAL_S)
    if held is None:
        return
    alias, caller, duration_ms = context["connection"].alias, _caller(), round(duration_s * 1000, 1)
    logger.warning(
        "slow statement: %.0f ms on %s for %s%s%s: %s",
        duration_ms,
        alias,
        work.label,
        f" at {caller}" if caller else "",
        _held_back_note(held),
        shape,
        extra={
            "alias": alias,
            "duration_ms": duration_ms,
            "work": str(work),
            "view": work.view,
            "caller": caller,
            "held_back": held.alike,
            "others_held_back": held.others,
            "sql": shape,
        },
    )


def _held_back_note(held: HeldBack) -> str:
    alike = f" ({held.alike} more like it since the last line)" if held.alike else ""
    return f"{alike} ({held.others} lines on other statements were dropped)" if held.others else alike


def _as_text(sql: Any, cursor: Any) -> str:
    """Return the statement's text; drivers also accept bytes and composed statements."""
    if isinstance(sql, bytes):
        return sql.decode(errors="replace")
    return sql if isinstance(sql, str) else str(sql.as_string(cursor))


def _caller() -> str:
    """Return file and line of the project's code that runs the statement; empty if there is none on the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if is_own_code(path):
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""
