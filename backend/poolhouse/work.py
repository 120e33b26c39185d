"""What a thread is doing, so that a pool can say for whom a connection is held, and a log line for whom a statement ran."""

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
    """with a connection that has been returned since"""
    held_since: float | None = None
    """when the connection was lent that is held now"""

    def held_s(self) -> float:
        """Give how long this work has had a connection, the one that it still holds included."""
        return self.hold_s + (0.0 if self.held_since is None else time.perf_counter() - self.held_since)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


_current: ContextVar[Work | None] = ContextVar("poolhouse_work", default=None)


def current_work() -> Work | None:
    """Give what this thread, or this coroutine, is doing; None if nobody has said."""
    return _current.get()


@contextmanager
def doing(work: Work) -> Iterator[Work]:
    """Say for the length of a block what is being done."""
    token = _current.set(work)
    try:
        yield work
    finally:
        _current.reset(token)
