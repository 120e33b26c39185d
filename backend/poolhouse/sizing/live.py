"""The measured load: the difference between two readings of the reports."""

from collections.abc import Sequence
from dataclasses import dataclass

from poolhouse.measures.histogram import Histogram
from poolhouse.process.pools import PoolState
from poolhouse.reports.report import ProcessReport
from poolhouse.sizing.queue import Holds, Load

Reports = Sequence[ProcessReport]


class NothingMeasuredError(Exception):
    """The reports do not show the load; the text says why."""


@dataclass(frozen=True)
class Measured:
    """The load of a service's busiest process."""

    service: str
    process: str
    load: Load
    """the rate of this process, with the hold times of the whole service"""
    elapsed_s: float
    checkouts: int
    """checkouts of this process"""
    connections: int | None
    """the max of its pool; None: no limit"""
    waits: Histogram
    """of this process"""
    hosts: int
    processes: int
    """of the service, on all hosts"""
    peak: int | None = None
    """the most connections in use at once in one process; None: unknown, or the pool was exhausted"""


@dataclass(frozen=True)
class _Interval:
    """The changes of a pool between two reports of its process."""

    report: ProcessReport
    pool: PoolState
    elapsed_s: float
    counts: dict[str, int]
    holds: Histogram
    waits: Histogram

    @property
    def rate_per_s(self) -> float:
        """Callers per second, including those that timed out."""
        return (self.counts["lent"] + self.counts.get("timeouts", 0)) / self.elapsed_s


def measure(before: Reports, after: Reports, *, alias: str, service: str | None = None) -> Measured:
    """Return the load between two readings of the reports.

    Args:
        before: the first reading.
        after: the second reading.
        alias: of the database.
        service: only this service; None: the service of the busiest process.

    Raises:
        NothingMeasuredError: the reports do not show a load.
    """
    if service is not None and service not in {report.service for report in after}:
        there = ", ".join(sorted({report.service for report in after})) or "none"
        raise NothingMeasuredError(f"no process of the service {service!r} is reporting; reporting services: {there}")
    intervals = [
        interval for interval in _intervals(before, after, alias) if service in (None, interval.report.service)
    ]
    busiest = max(intervals, key=lambda interval: interval.rate_per_s, default=None)
    if busiest is None:
        raise NothingMeasuredError(
            f"no process reported wait and hold times of {alias!r} twice; only the engine "
            "poolhouse.engines.postgresql measures them"
        )
    together = [interval for interval in intervals if interval.report.service == busiest.report.service]
    holds = Histogram.merged(interval.holds for interval in together)
    if not holds.count or not busiest.rate_per_s:
        raise NothingMeasuredError(
            f"no connection of {alias!r} was checked out and in within {busiest.elapsed_s:.0f} s"
        )
    return Measured(
        service=busiest.report.service,
        process=busiest.report.name,
        load=Load(busiest.rate_per_s, Holds.measured(holds)),
        elapsed_s=busiest.elapsed_s,
        checkouts=busiest.counts["lent"],
        connections=busiest.pool.max,
        waits=busiest.waits,
        hosts=len({interval.report.host for interval in together}),
        processes=len(together),
        peak=_peak([interval.pool for interval in together]),
    )


def _peak(pools: Sequence[PoolState]) -> int | None:
    """Return the highest peak, or None if a pool was exhausted, since more callers may have wanted a connection."""
    peaks = [pool.peak for pool in pools if pool.peak]
    is_used_up = any(pool.max is not None and (pool.peak or 0) >= pool.max for pool in pools)
    return None if is_used_up else max(peaks, default=None)


def _intervals(before: Reports, after: Reports, alias: str) -> list[_Interval]:
    earlier = {(report.key, report.started_at): report for report in before}
    found = []
    for report in after:
        first = earlier.get((report.key, report.started_at))
        if first is None or report.reported_at <= first.reported_at:
            continue
        elapsed_s = report.reported_at - first.reported_at
        pools = {pool.alias: pool for pool in first.pools}
        found += [
            _interval(report, pools[pool.alias], pool, elapsed_s)
            for pool in report.pools
            if pool.alias == alias and _has_holds(pool) and alias in pools
        ]
    return found


def _has_holds(pool: PoolState) -> bool:
    return pool.hold is not None and not pool.hold.without_bucket and "lent" in pool.counts


def _interval(report: ProcessReport, first: PoolState, last: PoolState, elapsed_s: float) -> _Interval:
    return _Interval(
        report=report,
        pool=last,
        elapsed_s=elapsed_s,
        counts={name: number - first.counts.get(name, 0) for name, number in last.counts.items()},
        holds=(last.hold or Histogram()).since(first.hold or Histogram()),
        waits=(last.wait or Histogram()).since(first.wait or Histogram()),
    )
