"""The activity on an alias: since the process started, and in the last 5 minutes."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from poolhouse.measures.histogram import Histogram

RECENT_S = 300
"""older activity does not count as recent"""
NOW_S = 60
"""pool timeouts within it are going on, not over"""
SAMPLE_INTERVAL_S = 10


@dataclass(frozen=True)
class Activity:
    """The statements and the pool's durations of one alias. What an engine does not report is None or 0."""

    alias: str
    statements: Histogram = field(default_factory=Histogram)
    """durations of all statements, failed ones included"""
    errors: int = 0
    """statements that failed, except for violated constraints"""
    timeouts: int = 0
    """pool timeouts"""
    connects: int = 0
    """connections opened"""
    connect_errors: int = 0
    """connections that could not be opened"""
    wait: Histogram | None = None
    """wait times, including pool timeouts"""
    hold: Histogram | None = None
    """hold times"""
    timeouts_now: int = 0
    """pool timeouts in the last NOW_S"""

    @property
    def error_share(self) -> float | None:
        """Failed statements as a share of all; None without statements."""
        return self.errors / self.statements.count if self.statements.count else None

    def since(self, earlier: "Activity") -> Self:
        """Return what was added since an earlier sample of the same alias."""
        return type(self)(
            self.alias,
            self.statements.since(earlier.statements),
            self.errors - earlier.errors,
            _added(self.timeouts, earlier.timeouts),
            _added(self.connects, earlier.connects),
            _added(self.connect_errors, earlier.connect_errors),
            _recorded(self.wait, earlier.wait),
            _recorded(self.hold, earlier.hold),
        )

    @classmethod
    def merged(cls, alias: str, activities: Iterable["Activity"]) -> Self:
        """Add up the activity of several processes."""
        parts = list(activities)
        return cls(
            alias,
            Histogram.merged(part.statements for part in parts),
            sum(part.errors for part in parts),
            sum(part.timeouts for part in parts),
            sum(part.connects for part in parts),
            sum(part.connect_errors for part in parts),
            merged_if_told(part.wait for part in parts),
            merged_if_told(part.hold for part in parts),
            sum(part.timeouts_now for part in parts),
        )

    def as_figures(self) -> dict[str, Any]:
        """Return the JSON data without the alias; durations as count, mean and percentiles, in seconds."""
        return {
            "statements": self.statements.summary(),
            "errors": self.errors,
            "timeouts": self.timeouts,
            "timeouts_now": self.timeouts_now,
            "connects": self.connects,
            "connect_errors": self.connect_errors,
            "wait": self.wait and self.wait.summary(),
            "hold": self.hold and self.hold.summary(),
        }


def merged_if_told(histograms: Iterable[Histogram | None]) -> Histogram | None:
    """Add up the histograms that are not None; None if all are."""
    known = [histogram for histogram in histograms if histogram is not None]
    return Histogram.merged(known) if known else None


# A pool that was closed and made again counts from 0: all of it is new.


def _added(now: int, before: int) -> int:
    return now - before if now >= before else now


def _recorded(now: Histogram | None, before: Histogram | None) -> Histogram | None:
    return now if now is None or before is None or now.count < before.count else now.since(before)


class Past:
    """Samples of the last RECENT_S, one per SAMPLE_INTERVAL_S; recent activity is the difference to the oldest."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Sequence[Activity]]] = deque()

    def recent(self, activities: Sequence[Activity], now_s: float) -> tuple[Activity, ...]:
        """Return the activity in the last RECENT_S, or since the process started if that is later.

        Args:
            activities: of every alias, since the process started.
            now_s: on a clock that is never set.
        """
        if not self._samples or now_s - self._samples[-1][0] >= SAMPLE_INTERVAL_S:
            self._samples.append((now_s, activities))
        while len(self._samples) > 1 and now_s - self._samples[1][0] >= RECENT_S:
            self._samples.popleft()
        recent, now = self._since(activities, now_s - RECENT_S), self._since(activities, now_s - NOW_S)
        return tuple(replace(one, timeouts_now=last.timeouts) for one, last in zip(recent, now, strict=True))

    def _since(self, activities: Sequence[Activity], then_s: float) -> list[Activity]:
        """Return the activity since the last sample before a time, or all of it if there is no such sample."""
        before = [sample for sampled_at, sample in self._samples if sampled_at <= then_s]
        earlier = {activity.alias: activity for activity in before[-1]} if before else {}
        return [
            activity.since(earlier[activity.alias]) if activity.alias in earlier else activity
            for activity in activities
        ]
