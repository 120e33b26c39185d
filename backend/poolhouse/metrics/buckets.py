"""Prometheus' cumulative buckets, made of this app's log-spaced ones."""

from collections.abc import Sequence

from poolhouse.measures.histogram import BUCKETS_PER_DOUBLING, Histogram, bucket_end_s

# Each bound is twice the one before, from 64 µs to 67 s, and the end of one of our buckets, so that none is split.
FIRST_DOUBLING, LAST_DOUBLING = 6, 26
ENDS = tuple(
    range(FIRST_DOUBLING * BUCKETS_PER_DOUBLING, LAST_DOUBLING * BUCKETS_PER_DOUBLING + 1, BUCKETS_PER_DOUBLING)
)
BOUNDS_S = tuple(bucket_end_s(end) for end in ENDS)
INFINITE = "+Inf"


def cumulative(histogram: Histogram) -> Sequence[tuple[str, float]]:
    """Return for each bound the number of durations up to it; the last bound is infinite.

    Durations of which only the total is known are in the last one alone. If there are no others, only the last one is
    returned, so that no quantile is guessed.
    """
    if histogram.without_bucket and not histogram.counts:
        return [(INFINITE, histogram.count)]
    found = [
        (repr(bound_s), sum(count for bucket, count in histogram.counts.items() if bucket <= end))
        for end, bound_s in zip(ENDS, BOUNDS_S, strict=True)
    ]
    return [*found, (INFINITE, histogram.count)]
