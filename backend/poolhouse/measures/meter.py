"""What a pool has done since its process began: counters and durations."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from poolhouse.measures.histogram import Histogram

# What can be counted; the names are those of the status' JSON and, with a prefix, of the metrics.
COUNTERS = (
    "lent",  # connections given to a caller
    "timeouts",  # callers that got none in time
    "connects",  # connections opened
    "connect_errors",
    "recycled",  # closed for their age
    "invalidated",  # found dead, or broken by an error
    "resets",  # sessions brought back to their beginning, since a borrower left state in them
)

Listener = Callable[[str, str, float], None]
"""is told of each duration as it ends: the pool's alias, what it is (wait, hold or connect), and the seconds"""
_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Tell a listener of the durations of every pool of this process, on the thread that they are of."""
    _listeners.append(listener)


class Meter:
    """Counters and durations of one pool, safe to write from any thread."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        # Reentrant: the collector may return a connection that was forgotten while this thread is counting.
        self._lock = threading.RLock()
        self._counts: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._wait, self._hold, self._connect = Histogram(), Histogram(), Histogram()

    def count(self, name: str) -> None:
        """Count an event of COUNTERS."""
        with self._lock:
            self._counts[name] += 1

    def lent(self, waited_s: float) -> None:
        """Count a connection that was lent, and how long its borrower waited for it."""
        with self._lock:
            self._counts["lent"] += 1
            self._wait.record(waited_s)
        if _listeners:
            self._tell("wait", waited_s)

    def returned(self, held_s: float) -> None:
        """Note how long a connection was lent."""
        with self._lock:
            self._hold.record(held_s)
        if _listeners:
            self._tell("hold", held_s)

    def connected(self, took_s: float) -> None:
        """Count a connection that was opened, and how long that took."""
        with self._lock:
            self._counts["connects"] += 1
            self._connect.record(took_s)
        if _listeners:
            self._tell("connect", took_s)

    def read(self) -> dict[str, Any]:
        """Give the counters and copies of the histograms, all of one moment: `counts`, `wait`, `hold`, `connect`."""
        with self._lock:
            return {
                "counts": dict(self._counts),
                "wait": Histogram.merged([self._wait]),
                "hold": Histogram.merged([self._hold]),
                "connect": Histogram.merged([self._connect]),
            }

    def _tell(self, what: str, seconds: float) -> None:
        for listener in _listeners:
            listener(self._alias, what, seconds)
