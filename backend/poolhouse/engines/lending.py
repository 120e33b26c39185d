"""A connection that is lent: what the borrower has of it, and what the pool knows of the borrower."""

import sys
import threading
import time
import traceback
from contextlib import suppress
from types import CodeType, FrameType
from typing import Any, Protocol

from django.db import InterfaceError

from poolhouse.engines.cursors import LentCursor
from poolhouse.tracing.work import Work, current_work

# Each costs half a microsecond: enough for a view under Django, not for all of the web server under the view.
STACK_MAX_FRAMES = 25
# The engine's own, and Django's that open a connection.
STACK_SKIPPED_FRAMES = 6
Frames = tuple[tuple[CodeType, int], ...]

# What Django and the status read. Whatever else a borrower has of the driver's connection may change it.
_ONLY_READ = frozenset({"adapters", "commit", "info", "rollback", "server_version", "encoding"})


class Lease:
    """Who holds a connection, and since when. Times are those of perf_counter, in seconds."""

    __slots__ = (
        "began_at",
        "frames",
        "is_over",
        "is_suspect",
        "is_touched",
        "last_statement",
        "leaves_state",
        "named_cursors",
        "slot",
        "thread",
        "work",
    )

    def __init__(self, slot: Any = None, frames: Frames = ()) -> None:
        self.slot = slot
        """the pool's own, until it has it back"""
        self.frames = frames
        """the code that took it, innermost first, with positions in it; empty where nobody asked for it"""
        self.work: Work | None = current_work()
        self.thread = threading.current_thread()
        self.last_statement = ""
        self.leaves_state = False
        """a statement has left something in the session"""
        self.is_touched = False
        """the borrower had hold of the driver's connection itself, and may have changed its attributes"""
        self.named_cursors: tuple[Any, ...] = ()
        """those that the server has as well"""
        self.is_suspect = False
        """held for so long that it was logged"""
        self.is_over = False
        self.began_at = time.perf_counter()

    def held_s(self) -> float:
        """How long it has been lent."""
        return time.perf_counter() - self.began_at

    @property
    def holder(self) -> str:
        """Who holds it: the request or task where that is known, and the thread."""
        thread = f"thread {self.thread.name}"
        return f"{self.work} in {thread}" if self.work else thread


class Lender(Protocol):
    """Who has lent a connection."""

    def take_back(self, lent: "LentConnection") -> None:
        """Receive it from its borrower."""


class LentConnection:
    """The driver's connection, for as long as it is lent; closing it gives it back, and so does forgetting it.

    SQLAlchemy's own does more, for ten times the price. Attributes are read through; to set one, there is
    `driver_connection`. A cursor of it ends with it.
    """

    __slots__ = ("__weakref__", "_lender", "lease", "raw")

    def __init__(self, raw: Any, lease: Lease, lender: Lender) -> None:
        self.raw = raw
        """the driver's connection, for this engine itself; None once it was given back"""
        self.lease = lease
        self._lender: Lender | None = lender

    def __getattr__(self, name: str) -> Any:
        if name not in _ONLY_READ:
            self.lease.is_touched = True
        return getattr(self._open_one(), name)

    @property
    def driver_connection(self) -> Any:
        """The driver's connection; None once it was given back."""
        self.lease.is_touched = True
        return self.raw

    @property
    def autocommit(self) -> bool:
        """Whether each statement is a transaction of its own."""
        return bool(self._open_one().autocommit)

    @autocommit.setter
    def autocommit(self, autocommit: bool) -> None:
        self._open_one().autocommit = autocommit

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Open a cursor."""
        cursor = self._open_one().cursor(*args, **kwargs)
        if isinstance(cursor, LentCursor):
            cursor.lease = self.lease
        else:  # of the borrower's own kind: what it runs is not seen
            self.lease.leaves_state = True
        if args or kwargs:
            self.end_with_lease(cursor)
        return cursor

    def end_with_lease(self, cursor: Any) -> None:
        """Close a cursor when the connection is given back, if it is one that the server has as well."""
        if getattr(cursor, "name", None):
            self.lease.named_cursors += (cursor,)

    @property
    def closed(self) -> bool:
        """Whether it was given back, or is closed."""
        return self.raw is None or bool(self.raw.closed)

    def close(self) -> None:
        """Give it back."""
        if self._lender is not None:
            try:
                self._lender.take_back(self)  # it also closes cursors
            except BaseException as error:
                forget_locals(error)
                raise
            finally:
                self.raw = None
            self._lender = None  # now, and not before: a signal's exception may have come in between

    def _open_one(self) -> Any:
        if self.raw is None:
            raise InterfaceError("connection already closed")
        return self.raw


# Other frames keep their locals: an error page of the project may show them, and to clear a generator would close it.
_CLEARED_MODULES = ("poolhouse.engines.", "sqlalchemy.pool.")


def forget_locals(error: BaseException) -> None:
    """Clear the locals of the engine's frames in a traceback: a kept exception would keep the permit in them."""
    passed: BaseException | None = error
    while passed is not None:
        for frame, _ in traceback.walk_tb(passed.__traceback__):
            if frame.f_globals.get("__name__", "").startswith(_CLEARED_MODULES):
                with suppress(RuntimeError):  # a frame that still runs cannot be cleared
                    frame.clear()
        passed = passed.__context__


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
