"""Counters and durations of a pool since its process started."""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from poolhouse.measures.durations import NOTED_MAX, Durations
from poolhouse.measures.histogram import Histogram

logger = logging.getLogger(__name__)

# The counters; their names are those of the status' JSON and, with a prefix, of the metrics.
COUNTERS = (
    "lent",  # connections checked out
    "timeouts",  # pool timeouts
    "connects",  # connections opened
    "connect_errors",
    "recycled",  # closed because of their age
    "invalidated",  # found dead, or marked as broken by an error
    "resets",  # sessions reset because their holder left session state
)

Listener = Callable[[str, str, float], None]
"""called with each duration: the alias, the kind (wait, hold or connect) and the seconds"""
_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Call a listener with each duration of every pool of this process, on the thread that it was measured on."""
    _listeners.append(listener)


class Meter:
    """Counters and durations of one pool, safe to write from any thread and from the garbage collector."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._lock = threading.Lock()
        self._events: deque[str] = deque()
        self._counts: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._checkout, self._timed_out, self._hold, self._connect = (Durations() for _ in range(4))
        self._out: deque[None] = deque()  # one entry per connection in use: its length is read without a lock
        self._peak = 0

    def count(self, name: str) -> None:
        """Count an event of COUNTERS. Checkouts, timeouts and connects are counted with their durations."""
        self._events.append(name)
        if len(self._events) > NOTED_MAX:
            self._count_some()

    def checked_out(self, waited_s: float) -> None:
        """Count a checkout, with its wait time."""
        self._out.append(None)
        self._peak = max(self._peak, len(self._out))
        self._checkout.note(waited_s)
        if _listeners:
            self._tell("wait", waited_s)

    def timed_out(self, waited_s: float) -> None:
        """Count a pool timeout; its duration counts as a wait time."""
        if self._timed_out.note(waited_s):
            self._count_some()
        if _listeners:
            self._tell("wait", waited_s)

    def checked_in(self, held_s: float) -> None:
        """Count a check-in, with its hold time."""
        with suppress(IndexError):  # a signal interrupted the checkout before it was noted
            self._out.pop()
        if self._hold.note(held_s):
            self._count_some()
        if _listeners:
            self._tell("hold", held_s)

    def connected(self, took_s: float) -> None:
        """Count a connection that was opened, with the time it took."""
        self._connect.note(took_s)
        if _listeners:
            self._tell("connect", took_s)

    def read(self) -> dict[str, Any]:
        """Return the counters and copies of the histograms, all of the same moment.

        The keys are `counts`, `wait` (including pool timeouts), `hold`, `connect` and `peak`.
        """
        with self._lock:
            self._count_noted()
            checkout, timed_out, hold, connect = (Histogram.merged([kind.counted]) for kind in self._durations)
        numbers = {"lent": checkout.count, "timeouts": timed_out.count, "connects": connect.count}
        return {
            "counts": {**self._counts, **numbers},
            "wait": Histogram.merged([checkout, timed_out]),
            "hold": hold,
            "connect": connect,
            "peak": self._peak,
        }

    @property
    def _durations(self) -> tuple[Durations, ...]:
        return self._checkout, self._timed_out, self._hold, self._connect

    def _count_some(self) -> None:
        """Count what was noted unless the lock is held, perhaps by this thread before the garbage collector ran."""
        if self._lock.acquire(blocking=False):
            try:
                self._count_noted()
            finally:
                self._lock.release()

    def _count_noted(self) -> None:
        for kind in self._durations:
            kind.count()
        for _ in range(len(self._events)):
            self._counts[self._events.popleft()] += 1

    def _tell(self, what: str, seconds: float) -> None:
        for listener in _listeners:
            try:
                listener(self._alias, what, seconds)
            except Exception:  # the listener is code of others, and a checkout or check-in is in progress
                logger.exception("%s: a listener for pool durations raised an error", self._alias)
