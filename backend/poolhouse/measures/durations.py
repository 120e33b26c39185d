"""Durations that are noted as they come, and counted many at once."""

from collections import deque

from poolhouse.measures.histogram import Histogram

# So many are kept as they came, until they are counted.
NOTED_MAX = 256


class Durations:
    """Durations that are noted without a lock: appending to a deque cannot be interrupted."""

    def __init__(self) -> None:
        self._noted: deque[float] = deque()
        self.counted = Histogram()

    def note(self, seconds: float) -> bool:
        """Note one; say whether it is time to count."""
        self._noted.append(seconds)
        return len(self._noted) > NOTED_MAX

    def count(self) -> None:
        """Count what was noted. Not safe against other threads: its owner has a lock."""
        for _ in range(len(self._noted)):
            self.counted.record(self._noted.popleft())
