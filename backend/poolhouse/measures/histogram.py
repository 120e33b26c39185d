"""Histograms with log-spaced buckets that are the same in every process, so that they can be added up."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

# Each bucket is 2^(1/4) = 1.19 times as wide as the one before: a percentile has an error of at most 9 %.
BUCKETS_PER_DOUBLING = 4
SHORTEST_S = 1e-6
"""the end of the first bucket"""
LAST_BUCKET = 30 * BUCKETS_PER_DOUBLING
"""the last bucket, from 15 minutes on"""


def bucket_of(seconds: float) -> int:
    """Return the number of the bucket that a duration falls into."""
    return bisect_left(_ENDS_S, seconds)


def bucket_end_s(bucket: int) -> float:
    """Return the longest duration that belongs to a bucket, in seconds."""
    return SHORTEST_S * math.exp2(bucket / BUCKETS_PER_DOUBLING)


# Bisecting takes a fifth of the time of a logarithm.
_ENDS_S = [bucket_end_s(bucket) for bucket in range(LAST_BUCKET)]


@dataclass
class Histogram:
    """The number of durations in each bucket."""

    counts: Counter[int] = field(default_factory=Counter)
    total_s: float = 0.0
    without_bucket: int = 0
    """durations of which only the total is known; with any, quantiles are unknown"""

    def record(self, seconds: float) -> None:
        """Count a duration. Not safe against other threads: the owner holds a lock."""
        self.counts[bucket_of(seconds)] += 1
        self.total_s += seconds

    @property
    def count(self) -> int:
        """The number of durations, with and without a bucket."""
        return self.counts.total() + self.without_bucket

    @property
    def mean_s(self) -> float | None:
        """The mean; None if there are no durations."""
        return self.total_s / self.count if self.count else None

    def quantile_s(self, share: float) -> float | None:
        """Return a quantile, 0.95 for p95, or None if it is unknown.

        It is the middle of a bucket on the logarithmic scale.
        """
        if self.without_bucket:
            return None
        rank = share * self.count
        passed = 0
        for bucket in sorted(self.counts):
            passed += self.counts[bucket]
            if passed >= rank:
                return bucket_end_s(bucket) / 2 ** (0.5 / BUCKETS_PER_DOUBLING)
        return None

    @classmethod
    def merged(cls, histograms: Iterable["Histogram"]) -> Self:
        """Add up histograms, such as those of several processes."""
        merged = cls()
        for histogram in histograms:
            merged.counts.update(histogram.counts)
            merged.total_s += histogram.total_s
            merged.without_bucket += histogram.without_bucket
        return merged

    def since(self, earlier: "Histogram") -> Self:
        """Return what was recorded since an earlier copy."""
        return type(self)(
            self.counts - earlier.counts, self.total_s - earlier.total_s, self.without_bucket - earlier.without_bucket
        )

    def to_wire(self) -> list[Any]:
        """Return it as numbers: the total, those without a bucket, then bucket, count, bucket, count, …"""
        return [
            round(self.total_s, 6),
            self.without_bucket,
            *(number for pair in sorted(self.counts.items()) for number in pair),
        ]

    @classmethod
    def from_wire(cls, numbers: list[Any]) -> Self:
        """Return the histogram that `to_wire` has written."""
        total_s, without_bucket, *pairs = numbers
        counts = Counter(dict(zip(pairs[::2], pairs[1::2], strict=True)))
        return cls(counts, total_s, without_bucket)

    def summary(self) -> dict[str, float | int | None]:
        """Return count, mean and percentiles, in seconds."""
        return {
            "count": self.count,
            "mean_s": self.mean_s,
            "p50_s": self.quantile_s(0.50),
            "p95_s": self.quantile_s(0.95),
            "p99_s": self.quantile_s(0.99),
        }
