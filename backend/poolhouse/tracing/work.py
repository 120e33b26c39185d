"""What a thread is doing: for whom a pool holds a connection, and for whom a statement runs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class Work:
    """A request or a task, and what it has had of the database. Times in seconds, on the clock of perf_counter."""

    kind: str
    """request, task"""
    name: str
    """GET /api/jobs/, or worker.load_batch[6f…]"""
    begun_at: float = field(default_factory=time.perf_counter)
    statement_count: int = 0
    database_s: float = 0.0
    """in statements"""
    wait_s: float = 0.0
    """until the pool gave a connection"""
    hold_s: float = 0.0
    """with one connection or more, until the last of them was returned"""
    held_since: float = 0.0
    """since when it has had one without a pause; where it has one"""
    held_count: int = 0
    """connections that it has now, of whichever aliases"""
    opened_count: int = 0
    """connections opened for it, as far as is known"""
    has_unknown_opens: bool = False
    """a pool that is not this app's lent to it, and may have opened a connection for it"""
    checkouts: int = 0
    """connections that this app's engine has lent to it"""
    failed_aliases: tuple[str, ...] = ()
    """whose failures are in the log: each layer of middleware may meet the same one"""
    is_refused: bool = False
    """it failed because a pool had nothing to lend"""

    @property
    def view(self) -> str:
        """The name of the view that serves a request, once it is known; empty for a task."""
        return ""

    def took(self, now_s: float) -> None:
        """Note that a connection was lent to it. Time with several at once counts once."""
        if not self.held_count:
            self.held_since = now_s
        self.held_count += 1
        self.checkouts += 1

    def gave_back(self, now_s: float) -> None:
        """Note that one of its connections was returned."""
        self.held_count -= 1
        if not self.held_count:
            self.hold_s += now_s - self.held_since

    def held_s(self) -> float:
        """Give how long this work has had a connection, until now if it has one."""
        return self.hold_s + (time.perf_counter() - self.held_since if self.held_count else 0.0)

    @property
    def has_pool_times(self) -> bool:
        """Whether a pool that measures waiting and holding was asked; else both are unknown, and not 0."""
        return self.checkouts > 0 or self.wait_s > 0  # who timed out has waited

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def label(self) -> str:
        """What it is, for a line in the log."""
        return f"{self}, view {self.view}" if self.view else str(self)


_current: ContextVar[Work | None] = ContextVar("poolhouse_work", default=None)


def current_work() -> Work | None:
    """Give what this thread, or this coroutine, is doing; None if nobody has said."""
    return _current.get()


def switch_to(work: Work | None) -> Work | None:
    """Say what is being done from now on; give what was being done before."""
    before = _current.get()
    _current.set(work)
    return before


@contextmanager
def doing(work: Work) -> Iterator[Work]:
    """Say for the length of a block what is being done."""
    before = switch_to(work)
    try:
        yield work
    finally:
        switch_to(before)
