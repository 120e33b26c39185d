"""How many statements this process has run, how long they took and how many failed, by alias, whoever ran them."""

import threading
from collections import Counter, defaultdict

from poolhouse.measures.histogram import Histogram


class StatementMeter:
    """Durations and errors by alias, safe to write from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._durations: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._errors: Counter[str] = Counter()

    def note(self, alias: str, duration_s: float, *, failed: bool) -> None:
        """Count a statement; it takes a microsecond."""
        with self._lock:
            self._durations[alias].record(duration_s)
            if failed:
                self._errors[alias] += 1

    def read(self) -> dict[str, tuple[Histogram, int]]:
        """Give copies of the durations and the number of errors of each alias that had a statement."""
        with self._lock:
            return {
                alias: (Histogram.merged([durations]), self._errors[alias])
                for alias, durations in self._durations.items()
            }


_meter = StatementMeter()


def meter() -> StatementMeter:
    """Give this process' meter."""
    return _meter


def forget_parent() -> None:
    """Begin anew in a forked child."""
    global _meter  # noqa: PLW0603 - one a process; the parent's lock may have been held
    _meter = StatementMeter()
