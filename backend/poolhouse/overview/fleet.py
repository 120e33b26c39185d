"""Processes taken together: those of a service, or all of them."""

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
    """Some processes, and their pools as if they were one. What none of them tells is None."""

    name: str
    processes: list[ProcessReport]

    @cached_property
    def pools(self) -> list[PoolState]:
        """Every pool of every process."""
        return [pool for process in self.processes for pool in process.pools]

    @property
    def in_use(self) -> int:
        """Connections lent."""
        return sum(pool.in_use for pool in self.pools)

    @property
    def idle(self) -> int:
        """Connections open and waiting to be lent."""
        return sum(pool.idle for pool in self.pools)

    @property
    def overflow(self) -> int:
        """Connections open above their pool's size."""
        return sum(pool.overflow for pool in self.pools)

    @property
    def max(self) -> int | None:
        """How many they may open together; None where one of them is not bounded."""
        bounds = [pool.max for pool in self.pools if pool.max is not None]
        return sum(bounds) if len(bounds) == len(self.pools) else None

    @property
    def waiting(self) -> int | None:
        """Callers that wait for a connection."""
        told = [pool.waiting for pool in self.pools if pool.waiting is not None]
        return sum(told) if told else None

    @property
    def counts(self) -> Counter[str]:
        """What has happened since each process began."""
        total: Counter[str] = Counter()
        for pool in self.pools:
            total.update(pool.counts)
        return total

    @property
    def wait(self) -> Histogram | None:
        """From asking for a connection to having it."""
        return merged_if_told(pool.wait for pool in self.pools)

    @property
    def hold(self) -> Histogram | None:
        """From having it to returning it."""
        return merged_if_told(pool.hold for pool in self.pools)

    @property
    def connect(self) -> Histogram | None:
        """Opening one."""
        return merged_if_told(pool.connect for pool in self.pools)

    def alias_note(self, alias: str) -> str:
        """Name an alias, where there are several to be told apart."""
        return f" ({alias})" if len({pool.alias for pool in self.pools}) > 1 else ""

    def activity(self, alias: str | None = None) -> Activity:
        """What they have done since each began, on one alias or on all."""
        return self._added_up(alias, lambda process: process.activity)

    def recent(self, alias: str | None = None) -> Activity:
        """What they have done of late."""
        return self._added_up(alias, lambda process: process.recent)

    def _added_up(self, alias: str | None, of: Callable[[ProcessReport], Iterable[Activity]]) -> Activity:
        found = [one for process in self.processes for one in of(process) if alias in (None, one.alias)]
        return Activity.merged(alias or "", found)

    def as_document(self) -> dict[str, Any]:
        """The group as JSON data; percentiles are those of the added-up histograms."""
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
    """Put processes together by service, in the order of their names."""
    by_service: dict[str, list[ProcessReport]] = defaultdict(list)
    for process in processes:
        by_service[process.service].append(process)
    return [Group(service, members) for service, members in sorted(by_service.items())]
