"""A connection that is lent: what the borrower has of it, and what the pool knows of the borrower."""

import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from poolhouse.tracing.work import Work, current_work

# Each costs half a microsecond: enough for a view under Django, not for all of the web server under the view.
STACK_MAX_FRAMES = 25
# The engine's own, and Django's that open a connection.
STACK_SKIPPED_FRAMES = 5
Frames = tuple[tuple[CodeType, int], ...]


class Lease:
    """Who holds a connection, and since when. Times are those of perf_counter, in seconds."""

    __slots__ = ("began_at", "frames", "is_suspect", "last_statement", "leaves_state", "thread", "work")

    def __init__(self, frames: Frames = ()) -> None:
        self.frames = frames
        """the code that took it, innermost first, with positions in it; empty where nobody asked for it"""
        self.work: Work | None = current_work()
        self.thread = threading.current_thread()
        self.last_statement: Any = ""
        self.leaves_state = False
        """a statement has left something in the session"""
        self.is_suspect = False
        """held for so long that it was logged"""
        self.began_at = time.perf_counter()

    def held_s(self) -> float:
        """How long it has been lent."""
        return time.perf_counter() - self.began_at

    @property
    def holder(self) -> str:
        """Who holds it: the request or task where that is known, and the thread."""
        thread = f"thread {self.thread.name}"
        return f"{self.work} in {thread}" if self.work else thread


class LentConnection:
    """The driver's connection, for as long as it is lent; closing it gives it back, and so does forgetting it.

    SQLAlchemy's own does more, for ten times the price. The driver's connection is `driver_connection`: attributes are
    read through, and to be set there.
    """

    __slots__ = ("_give_back", "driver_connection", "lease")

    def __init__(self, driver_connection: Any, lease: Lease, give_back: Callable[[], None]) -> None:
        self.driver_connection = driver_connection
        self.lease = lease
        self._give_back: Callable[[], None] | None = give_back

    def __getattr__(self, name: str) -> Any:
        return getattr(self.driver_connection, name)

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Open a cursor."""
        return self.driver_connection.cursor(*args, **kwargs)

    @property
    def closed(self) -> bool:
        """Whether it was given back, or is closed."""
        return self._give_back is None or bool(self.driver_connection.closed)

    def close(self) -> None:
        """Give it back."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            self.driver_connection = None
            give_back()

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self.close()


def frames_here() -> Frames:
    """Note where the caller is, at the cost of a few microseconds: nothing is looked up before it is needed.

    Instead of line numbers, which Python finds by walking a table, positions in the code are noted; see `line_of`.
    """
    frame: FrameType | None = sys._getframe(STACK_SKIPPED_FRAMES)
    frames: list[tuple[CodeType, int]] = []
    while frame is not None and len(frames) < STACK_MAX_FRAMES:
        frames.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(frames)


def line_of(code: CodeType, position: int) -> int:
    """Give the line of a position that `frames_here` noted."""
    lines = (line for begin, end, line in code.co_lines() if begin <= position < end)
    return next(lines, None) or code.co_firstlineno
