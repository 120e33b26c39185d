"""The lease: one checkout with its holder, its start and the code that it came from."""

import sys
import threading
import time
from types import CodeType, FrameType
from typing import Any

from poolhouse.tracing.work import Work, current_work

# Each frame costs half a microsecond: enough for a view under Django, without the web server's frames.
STACK_MAX_FRAMES = 25
# The engine's own frames, and Django's that open a connection.
STACK_SKIPPED_FRAMES = 6
Frames = tuple[tuple[CodeType, int], ...]


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
