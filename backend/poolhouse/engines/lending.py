"""The lease of a connection and the object that its holder gets, which checks it in when it is closed or dropped."""

import sys
import threading
import time
import traceback
from contextlib import suppress
from types import CodeType, FrameType
from typing import Any, Protocol

from django.db import InterfaceError

from poolhouse.engines.cursors import LeasedCursor
from poolhouse.tracing.work import Work, current_work

# Each frame costs half a microsecond: enough for a view under Django, without the web server's frames.
STACK_MAX_FRAMES = 25
# The engine's own frames, and Django's that open a connection.
STACK_SKIPPED_FRAMES = 6
Frames = tuple[tuple[CodeType, int], ...]

# The attributes that Django and the status only read. Any other access may change the connection's state.
_ONLY_READ = frozenset({"adapters", "commit", "info", "rollback", "server_version", "encoding"})


class Lease:
    """One checkout: the holder and the start. Times are perf_counter's, in seconds."""

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
        """the pool's own; None after check-in"""
        self.frames = frames
        """the code that checked it out, innermost frame first, with positions; empty unless leaks are looked for"""
        self.work: Work | None = current_work()
        self.thread = threading.current_thread()
        self.last_statement = ""
        self.leaves_state = False
        """True once a statement has left session state"""
        self.is_touched = False
        """True once the holder has used the driver's connection itself, and may have changed its attributes"""
        self.named_cursors: tuple[Any, ...] = ()
        """server-side cursors"""
        self.is_suspect = False
        """logged as a leak suspect"""
        self.is_over = False
        self.began_at = time.perf_counter()

    def held_s(self) -> float:
        """Return the hold time so far."""
        return time.perf_counter() - self.began_at

    @property
    def holder(self) -> str:
        """The holder: the request or task, if known, and the thread."""
        thread = f"thread {self.thread.name}"
        return f"{self.work} in {thread}" if self.work else thread


class ConnectionOwner(Protocol):
    """The pool that a connection is checked out from."""

    def check_in(self, connection: "LeasedConnection") -> None:
        """Take a connection back from its holder."""


class LeasedConnection:
    """The driver's connection for one checkout; closing or dropping it checks it in.

    SQLAlchemy's own class does more at ten times the cost. Attributes are read through; set them on
    `driver_connection`. The cursors of the checkout end with it.
    """

    __slots__ = ("__weakref__", "_lender", "lease", "raw")

    def __init__(self, raw: Any, lease: Lease, lender: ConnectionOwner) -> None:
        self.raw = raw
        """the driver's connection, for this engine's use; None after check-in"""
        self.lease = lease
        self._lender: ConnectionOwner | None = lender

    def __getattr__(self, name: str) -> Any:
        if name not in _ONLY_READ:
            self.lease.is_touched = True
        return getattr(self._open_one(), name)

    @property
    def driver_connection(self) -> Any:
        """The driver's connection; None after check-in."""
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
        """Return a cursor of the driver's class that notes its statements."""
        cursor = self._open_one().cursor(*args, **kwargs)
        if isinstance(cursor, LeasedCursor):
            cursor.lease = self.lease
        else:  # a class of the holder's own: its statements are not seen
            self.lease.leaves_state = True
        if args or kwargs:
            self.end_with_lease(cursor)
        return cursor

    def end_with_lease(self, cursor: Any) -> None:
        """Close a server-side cursor at check-in."""
        if getattr(cursor, "name", None):
            self.lease.named_cursors += (cursor,)

    @property
    def closed(self) -> bool:
        """Whether it was checked in or closed."""
        return self.raw is None or bool(self.raw.closed)

    def close(self) -> None:
        """Check the connection in; closing it twice is not an error."""
        if self._lender is not None:
            try:
                self._lender.check_in(self)  # it also closes cursors
            except BaseException as error:
                forget_locals(error)
                raise
            finally:
                self.raw = None
            self._lender = None  # only now: a signal handler may have raised an exception in between

    def _open_one(self) -> Any:
        if self.raw is None:
            raise InterfaceError("connection already closed")
        return self.raw


# Frames of others keep their locals: an error page may show them, and clearing a generator would close it.
_CLEARED_MODULES = ("poolhouse.engines.", "sqlalchemy.pool.")


def forget_locals(error: BaseException) -> None:
    """Clear the locals of the engine's frames in a traceback, so that a kept exception does not keep the permit."""
    passed: BaseException | None = error
    while passed is not None:
        for frame, _ in traceback.walk_tb(passed.__traceback__):
            if frame.f_globals.get("__name__", "").startswith(_CLEARED_MODULES):
                with suppress(RuntimeError):  # a running frame cannot be cleared
                    frame.clear()
        passed = passed.__context__


def frames_here() -> Frames:
    """Return the caller's frames, at the cost of a few microseconds.

    They have positions in the code instead of line numbers, which Python finds by walking a table; see `line_of`.
    """
    frame: FrameType | None = sys._getframe(STACK_SKIPPED_FRAMES)
    frames: list[tuple[CodeType, int]] = []
    while frame is not None and len(frames) < STACK_MAX_FRAMES:
        frames.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(frames)


def line_of(code: CodeType, position: int) -> int:
    """Return the line number of a position from `frames_here`."""
    lines = (line for begin, end, line in code.co_lines() if begin <= position < end)
    return next(lines, None) or code.co_firstlineno
