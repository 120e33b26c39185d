"""Durations that are noted without a lock and counted in batches."""

from collections import deque

from poolhouse.measures.histogram import Histogram

# The number of noted durations from which on they are counted.
NOTED_MAX = 256


class Durations:
    """Durations noted without a lock: appending to a deque cannot be interrupted."""

    def __init__(self) -> None:
        self._noted: deque[float] = deque()
        self.counted = Histogram()

    def note(self, seconds: float) -> bool:
        """Note a duration; return True if it is time to call `count`."""
        self._noted.append(seconds)
        return len(self._noted) > NOTED_MAX

    def count(self) -> None:
        """Count the noted durations. Not safe against other threads: the owner holds a lock."""
        for _ in range(len(self._noted)):
            self.counted.record(self._noted.popleft())
