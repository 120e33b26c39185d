"""Processes added up: those of a service, or the whole fleet."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from poolhouse.measures.histogram import Histogram
from poolhouse.process.activity import Activity, merged_if_told
from poolhouse.process.pools import PoolState
from poolhouse.reports.report import ProcessReport


@dataclass(frozen=True)
class Group:
    """Some processes, with their pools added up. A value that none of them reports is None."""

    name: str
    processes: list[ProcessReport]

    @cached_property
    def pools(self) -> list[PoolState]:
        """The pools of all processes."""
        return [pool for process in self.processes for pool in process.pools]

    @property
    def in_use(self) -> int:
        """Connections in use, of all pools."""
        return sum(pool.in_use for pool in self.pools)

    @property
    def idle(self) -> int:
        """Idle connections, of all pools."""
        return sum(pool.idle for pool in self.pools)

    @property
    def overflow(self) -> int:
        """Connections open above their pool's size."""
        return sum(pool.overflow for pool in self.pools)

    @property
    def max(self) -> int | None:
        """The most connections that they may open together; None if one of them has no limit."""
        bounds = [pool.max for pool in self.pools if pool.max is not None]
        return sum(bounds) if len(bounds) == len(self.pools) else None

    @property
    def waiting(self) -> int | None:
        """Callers that wait for a connection."""
        known = [pool.waiting for pool in self.pools if pool.waiting is not None]
        return sum(known) if known else None

    @property
    def counts(self) -> Counter[str]:
        """The counters since each process started."""
        total: Counter[str] = Counter()
        for pool in self.pools:
            total.update(pool.counts)
        return total

    @property
    def wait(self) -> Histogram | None:
        """Wait times, from asking for a connection to having it."""
        return merged_if_told(pool.wait for pool in self.pools)

    @property
    def hold(self) -> Histogram | None:
        """Hold times, from checkout to check-in."""
        return merged_if_told(pool.hold for pool in self.pools)

    @property
    def connect(self) -> Histogram | None:
        """Times to open a connection."""
        return merged_if_told(pool.connect for pool in self.pools)

    def alias_note(self, alias: str) -> str:
        """Return an alias in brackets if the pools have several aliases."""
        return f" ({alias})" if len({pool.alias for pool in self.pools}) > 1 else ""

    def activity(self, alias: str | None = None) -> Activity:
        """Return the activity since each process started, on one alias or all."""
        return self._added_up(alias, lambda process: process.activity)

    def recent(self, alias: str | None = None) -> Activity:
        """Return the activity in the last 5 minutes, on one alias or all."""
        return self._added_up(alias, lambda process: process.recent)

    def _added_up(self, alias: str | None, of: Callable[[ProcessReport], Iterable[Activity]]) -> Activity:
        found = [one for process in self.processes for one in of(process) if alias in (None, one.alias)]
        return Activity.merged(alias or "", found)

    def as_document(self) -> dict[str, Any]:
        """Return the JSON data; percentiles are those of the merged histograms."""
        durations = {"wait": self.wait, "hold": self.hold, "connect": self.connect}
        return {
            "processes": len(self.processes),
            "in_use": self.in_use,
            "idle": self.idle,
            "overflow": self.overflow,
            "waiting": self.waiting,
            "max": self.max,
            "counts": dict(self.counts),
            **{name: histogram and histogram.summary() for name, histogram in durations.items()},
            "activity": self.activity().as_figures(),
            "recent": self.recent().as_figures(),
        }


def services(processes: Iterable[ProcessReport]) -> list[Group]:
    """Group processes by service, sorted by name."""
    by_service: dict[str, list[ProcessReport]] = defaultdict(list)
    for process in processes:
        by_service[process.service].append(process)
    return [Group(service, members) for service, members in sorted(by_service.items())]
