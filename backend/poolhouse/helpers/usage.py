"""Measuring the database use of a block of code."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from poolhouse.formatting import counted
from poolhouse.process import pools
from poolhouse.tracing.log_lines import is_costly, queries, wait_and_hold
from poolhouse.tracing.work import Work, current_work, doing

if TYPE_CHECKING:  # it needs an engine that a project may not have installed
    from poolhouse.engines.lease import Lease

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Usage:
    """The database use of a block of its thread or coroutine, filled in when the block ends."""

    name: str
    statements: int = 0
    database_ms: float = 0.0
    """in statements"""
    wait_ms: float | None = None
    """for connections of pools; None: only this app's engine measures it, and the block did not use it"""
    hold_ms: float | None = None
    """with a connection of a pool; None: as above"""
    connections_opened: int | None = 0
    """None: the block used a pool that does not report it"""
    elapsed_ms: float = 0.0


@contextmanager
def db_connection_monitor(name: str, *, slow_ms: float | None = None) -> Iterator[Usage]:
    """Measure the database use of a block, and log it in one line.

    The line is a WARNING if a threshold for requests is exceeded, else INFO. Within a request or a task the block
    counts as part of it, and blocks can be nested.

    Args:
        name: of the block, for the log.
        slow_ms: the threshold for the time in statements; None: POOLHOUSE["SLOW_REQUEST_DATABASE_MS"].
    """
    usage, began_at = Usage(name), time.perf_counter()
    with _work_of(name) as work:
        before, held_before_s = copy(work), work.held_s()
        try:
            yield usage
        finally:
            usage.statements = work.statement_count - before.statement_count
            usage.database_ms = (work.database_s - before.database_s) * 1000
            if work.has_pool_times:
                usage.wait_ms = (work.wait_s - before.wait_s) * 1000
                usage.hold_ms = (work.held_s() - held_before_s) * 1000
            usage.connections_opened = None if work.has_unknown_opens else work.opened_count - before.opened_count
            usage.elapsed_ms = (time.perf_counter() - began_at) * 1000
            _log(usage, slow_ms)


@contextmanager
def _work_of(name: str) -> Iterator[Work]:
    """Yield this thread's work; without a request or task, the block becomes its work."""
    work = current_work()
    if work is not None:
        yield work
        return
    with doing(Work("block", name)) as block:
        for lease in _leases_of(None):  # checked out before the block began
            lease.work = block
            block.took(lease.began_at)
        try:
            yield block
        finally:
            for lease in _leases_of(block):  # still in use: the next block counts it
                lease.work = None


def _leases_of(work: Work | None) -> list["Lease"]:
    """Return this thread's leases for a work."""
    connections: list[Any] = [wrapper.connection for wrapper in pools.lending_wrappers()]  # None: not connected now
    return [connection.lease for connection in connections if connection and connection.lease.work is work]


def _log(usage: Usage, slow_ms: float | None) -> None:
    wait_ms, hold_ms = usage.wait_ms or 0.0, usage.hold_ms or 0.0
    over = is_costly(usage.statements, usage.database_ms, wait_ms, hold_ms, slow_ms=slow_ms)
    error = sys.exception()
    measured = {} if usage.wait_ms is None else {"wait_ms": round(wait_ms, 1), "hold_ms": round(hold_ms, 1)}
    opened = {} if usage.connections_opened is None else {"opened": usage.connections_opened}
    logger.log(
        logging.WARNING if over else logging.INFO,
        "%s%s: %s in %.0f ms%s%s; total %.0f ms",
        usage.name,
        f", failed with {type(error).__name__}" if error else "",
        queries(usage.statements),
        usage.database_ms,
        wait_and_hold(wait_ms, hold_ms) if measured else "",
        f"; opened {counted(usage.connections_opened, 'connection')}" if usage.connections_opened is not None else "",
        usage.elapsed_ms,
        extra={
            "block": usage.name,
            "queries": usage.statements,
            "database_ms": round(usage.database_ms, 1),
            **measured,
            **opened,
        },
    )
