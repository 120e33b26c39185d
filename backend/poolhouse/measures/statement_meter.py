"""The number, durations and errors of this process' statements by alias."""

import threading
from collections import Counter

from poolhouse.measures.durations import Durations
from poolhouse.measures.histogram import Histogram


class StatementMeter:
    """Durations and errors by alias, safe to write from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._durations: dict[str, Durations] = {}
        self._errors: Counter[str] = Counter()

    def note(self, alias: str, duration_s: float, *, failed: bool) -> None:
        """Count a statement; it takes half a microsecond."""
        durations = self._durations.get(alias) or self._durations.setdefault(alias, Durations())
        if durations.note(duration_s):
            with self._lock:
                durations.count()
        if failed:
            with self._lock:
                self._errors[alias] += 1

    def read(self) -> dict[str, tuple[Histogram, int]]:
        """Return copies of the durations and the number of errors, by alias."""
        with self._lock:
            return {alias: (self._counted(alias), self._errors[alias]) for alias in list(self._durations)}

    def _counted(self, alias: str) -> Histogram:
        durations = self._durations[alias]
        durations.count()
        return Histogram.merged([durations.counted])


_meter = StatementMeter()


def meter() -> StatementMeter:
    """Return the meter of this process' statements."""
    return _meter


def forget_parent() -> None:
    """Start afresh in a forked child."""
    global _meter  # noqa: PLW0603 - one a process; the parent's lock may have been held
    _meter = StatementMeter()
