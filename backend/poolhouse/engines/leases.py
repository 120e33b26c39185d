"""Who holds a connection: since when, for what, and, where it is asked for, where in the code it was taken."""

import sys
import threading
import time
from dataclasses import dataclass, field
from types import CodeType, FrameType

from poolhouse.work import Work, current_work

STACK_MAX_FRAMES = 40
Frames = tuple[tuple[CodeType, int], ...]


@dataclass(slots=True, eq=False)
class Lease:
    """A connection that is lent. Times are those of perf_counter, in seconds."""

    frames: Frames = ()
    """the code that took it, innermost first, with line numbers; empty where nobody asked for it"""
    began_at: float = field(default_factory=time.perf_counter)
    thread_name: str = field(default_factory=lambda: threading.current_thread().name)
    work: Work | None = field(default_factory=current_work)
    last_statement: str = ""
    leaves_state: bool = False
    is_suspect: bool = False
    """held for so long that it was logged"""

    def held_s(self) -> float:
        """How long it has been lent."""
        return time.perf_counter() - self.began_at

    @property
    def holder(self) -> str:
        """Who holds it: the request or task where that is known, and the thread."""
        thread = f"thread {self.thread_name}"
        return f"{self.work} in {thread}" if self.work else thread


def frames_here() -> Frames:
    """Note where the caller is, at the cost of a few microseconds: nothing is formatted before it is needed."""
    frame: FrameType | None = sys._getframe(1)
    frames: list[tuple[CodeType, int]] = []
    while frame is not None and len(frames) < STACK_MAX_FRAMES:
        frames.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return tuple(frames)
