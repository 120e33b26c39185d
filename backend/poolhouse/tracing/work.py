"""The work of a thread: the request or task that its connections and statements belong to."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class Work:
    """A request or a task with its database use. Times are in seconds, perf_counter's."""

    kind: str
    """request, task"""
    name: str
    """GET /api/jobs/, or worker.load_batch[6f…]"""
    begun_at: float = field(default_factory=time.perf_counter)
    statement_count: int = 0
    database_s: float = 0.0
    """in statements"""
    wait_s: float = 0.0
    """waiting for connections of a pool"""
    hold_s: float = 0.0
    """with at least one connection"""
    held_since: float = 0.0
    """start of the current hold, if it has a connection"""
    held_count: int = 0
    """connections that it holds now, of all aliases"""
    opened_count: int = 0
    """connections opened for it, as far as known"""
    has_unknown_opens: bool = False
    """whether it used a pool that does not report the connections it opens"""
    checkouts: int = 0
    """connections of this app's engine that it checked out"""
    failed_aliases: tuple[str, ...] = ()
    """aliases whose failures are logged: each layer of middleware may meet the same failure"""
    is_refused: bool = False
    """whether it failed because of a pool timeout"""

    @property
    def view(self) -> str:
        """The name of the view that serves a request, once it is known; empty for a task."""
        return ""

    def took(self, now_s: float) -> None:
        """Note a checkout. Time with several connections counts once."""
        if not self.held_count:
            self.held_since = now_s
        self.held_count += 1
        self.checkouts += 1

    def gave_back(self, now_s: float) -> None:
        """Note a check-in; the hold ends with the last one."""
        self.held_count -= 1
        if not self.held_count:
            self.hold_s += now_s - self.held_since

    def held_s(self) -> float:
        """Return how long this work has held a connection, up to now if it has one."""
        return self.hold_s + (time.perf_counter() - self.held_since if self.held_count else 0.0)

    @property
    def has_pool_times(self) -> bool:
        """Return True if it used a pool that measures wait and hold times; otherwise both are unknown, not 0."""
        return self.checkouts > 0 or self.wait_s > 0  # after a pool timeout there is only a wait

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def label(self) -> str:
        """The work as named in log lines."""
        return f"{self}, view {self.view}" if self.view else str(self)


_current: ContextVar[Work | None] = ContextVar("poolhouse_work", default=None)


def current_work() -> Work | None:
    """Return the work of this thread or coroutine, or None."""
    return _current.get()


def switch_to(work: Work | None) -> Work | None:
    """Set the current work, and return the previous one."""
    before = _current.get()
    _current.set(work)
    return before


@contextmanager
def doing(work: Work) -> Iterator[Work]:
    """Set the current work for a block."""
    before = switch_to(work)
    try:
        yield work
    finally:
        switch_to(before)
