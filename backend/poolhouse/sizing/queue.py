"""A pool as a queue: callers arrive at random, hold a connection, and wait if none is idle (M/G/c).

docs/sizing-model.md has the formulas with their sources, and their deviations from a simulation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from math import exp, expm1, inf, log, sqrt
from typing import Self

from poolhouse.measures.histogram import BUCKETS_PER_DOUBLING, Histogram, bucket_end_s

P95_Z = 1.6449
"""the 95th percentile of the standard normal distribution"""


@dataclass(frozen=True)
class Holds:
    """The distribution of the hold times."""

    mean_s: float
    cv2: float = 1.0
    """squared coefficient of variation: 0 if all are equal, 1 if exponential, more with a long tail"""

    @classmethod
    def measured(cls, histogram: Histogram) -> Self:
        """Return the distribution of a histogram that is not empty."""
        middles = {bucket: bucket_end_s(bucket) / 2 ** (0.5 / BUCKETS_PER_DOUBLING) for bucket in histogram.counts}
        total = histogram.counts.total()
        mean = sum(middles[bucket] * number for bucket, number in histogram.counts.items()) / total
        square = sum(middles[bucket] ** 2 * number for bucket, number in histogram.counts.items()) / total
        return cls(histogram.total_s / histogram.count, max(0.0, square / mean**2 - 1))

    @classmethod
    def log_normal(cls, mean_s: float, p95_s: float) -> Self:
        """Return a log-normal distribution, which durations often have.

        Raises:
            ValueError: no log-normal distribution has such a p95.
        """
        beyond = P95_Z**2 - 2 * log(p95_s / mean_s)
        if p95_s < mean_s or beyond < 0:
            raise ValueError(
                f"with a mean of {mean_s * 1000:g} ms, expected a p95 from {mean_s * 1000:g} to "
                f"{mean_s * 1000 * exp(P95_Z**2 / 2):.4g} ms, got {p95_s * 1000:g} ms"
            )
        return cls(mean_s, expm1((P95_Z - sqrt(beyond)) ** 2))


@dataclass(frozen=True)
class Load:
    """The load on a pool."""

    rate_per_s: float
    """checkouts per second"""
    holds: Holds

    @property
    def in_use(self) -> float:
        """The mean number of connections in use, by Little's law: no pool can do with fewer."""
        return self.rate_per_s * self.holds.mean_s

    def times(self, factor: float) -> "Load":
        """Return this load times a factor."""
        return Load(self.rate_per_s * factor, self.holds)


@dataclass(frozen=True)
class Target:
    """The wait that callers may have."""

    wait_s: float
    share: float = 0.95
    """the share of the callers that wait no longer"""

    def split(self, stages: int) -> "Target":
        """Return the target of each of several pools in a row, so that all of them together meet this one.

        The waits add up, and so do the shares of callers that wait longer, however these depend on each other.
        """
        return Target(self.wait_s / stages, 1 - (1 - self.share) / stages)


@dataclass(frozen=True)
class Pool:
    """A pool of some connections under a load."""

    load: Load
    connections: int
    refused: float
    """Erlang's B: the share that would be refused if no caller could wait"""

    @property
    def utilisation(self) -> float:
        """The share of time in which a connection is in use."""
        return self.load.in_use / self.connections

    @property
    def is_stable(self) -> bool:
        """Return True if the pool can serve the load; otherwise the queue grows for as long as the load lasts."""
        return self.utilisation < 1

    @cached_property
    def wait_probability(self) -> float:
        """The share of callers that must wait: Erlang's C."""
        return self.refused / (1 - self.utilisation * (1 - self.refused)) if self.is_stable else 1.0

    @cached_property
    def mean_wait_s(self) -> float:
        """The mean wait of all callers: Kimura's interpolation between M/D/c and M/M/c."""
        if not self.is_stable:
            return inf
        cv2, excess = self.load.holds.cv2, self._excess_of_equal_holds
        exponential_s = self.wait_probability * self.load.holds.mean_s / (self.connections * (1 - self.utilisation))
        return exponential_s * (1 + cv2) / 2 * (1 + excess) / (1 + cv2 * excess)

    @property
    def _excess_of_equal_holds(self) -> float:
        """How much longer M/D/c waits than half of M/M/c (Cosmetatos), limited to twice as long."""
        number, idle = self.connections, 1 - self.utilisation
        return min(1.0, idle * (number - 1) * (sqrt(4 + 5 * number) - 2) / (16 * number * self.utilisation))

    def share_above(self, wait_s: float) -> float:
        """Return the share of callers that wait longer.

        The waits above 0 are assumed to be exponential or, if hold times vary more than that, a mixture of two
        exponentials with the variation that Whitt found.
        """
        if not self.is_stable:
            return 1.0
        if self.mean_wait_s == 0:
            return 0.0
        times = wait_s * self.wait_probability / self.mean_wait_s
        rarer = self._share_of_short_waits
        return self.wait_probability * (rarer * exp(-2 * rarer * times) + (1 - rarer) * exp(-2 * (1 - rarer) * times))

    @cached_property
    def _share_of_short_waits(self) -> float:
        cv2, idle = self.load.holds.cv2, 1 - self.utilisation
        wait_cv2 = 1.0 if cv2 <= 1 else 1 - 2 * idle + 4 * idle * cv2 / (1 + cv2)
        return (1 + sqrt((wait_cv2 - 1) / (wait_cv2 + 1))) / 2

    def wait_s(self, share: float) -> float:
        """Return a quantile of the wait, 0.95 for p95."""
        if not self.is_stable:
            return inf
        if self.wait_probability <= 1 - share:
            return 0.0
        shorter, longer = 0.0, self.mean_wait_s
        while self.share_above(longer) > 1 - share:
            shorter, longer = longer, longer * 2
        while longer - shorter > 1e-6 * longer:
            middle = (shorter + longer) / 2
            shorter, longer = (middle, longer) if self.share_above(middle) > 1 - share else (shorter, middle)
        return longer

    def keeps(self, target: Target) -> bool:
        """Return True if the target is met."""
        return self.is_stable and self.share_above(target.wait_s) <= 1 - target.share


def pools(load: Load) -> Iterator[Pool]:
    """Yield pools of 1, 2, 3 and more connections under a load."""
    refused = 1.0
    for connections in count(1):
        refused = load.in_use * refused / (connections + load.in_use * refused)
        yield Pool(load, connections, refused)


def pool_of(load: Load, connections: int) -> Pool:
    """Return the pool of this many connections under a load."""
    return next(islice(pools(load), connections - 1, None))


def pool_for(load: Load, target: Target) -> Pool:
    """Return the smallest pool that meets a target."""
    return next(pool for pool in pools(load) if pool.keeps(target))


@dataclass(frozen=True)
class Demand:
    """A load, and the target for its callers."""

    load: Load
    """the usual load"""
    target: Target
    burst: float = 1.5
    """the factor by which the load may rise for a while"""

    @property
    def steady(self) -> Pool:
        """The smallest pool that meets the target under the usual load."""
        return pool_for(self.load, self.target)

    @property
    def in_burst(self) -> Pool:
        """The smallest pool that meets the target in a burst."""
        return pool_for(self.load.times(self.burst), self.target)

    def times(self, factor: float) -> "Demand":
        """Return this demand times a factor."""
        return Demand(self.load.times(factor), self.target, self.burst)
