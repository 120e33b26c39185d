"""Our log-spaced buckets as Prometheus has them: cumulative, up to bounds at which buckets of ours end."""

from collections.abc import Sequence

from poolhouse.measures.histogram import BUCKETS_PER_DOUBLING, Histogram, bucket_end_s

# Each bound is twice the one before, from 64 µs to 67 s; at an end of a bucket, so that nothing is split by guess.
FIRST_DOUBLING, LAST_DOUBLING = 6, 26
ENDS = tuple(
    range(FIRST_DOUBLING * BUCKETS_PER_DOUBLING, LAST_DOUBLING * BUCKETS_PER_DOUBLING + 1, BUCKETS_PER_DOUBLING)
)
BOUNDS_S = tuple(bucket_end_s(end) for end in ENDS)
INFINITE = "+Inf"


def cumulative(histogram: Histogram) -> Sequence[tuple[str, float]]:
    """Give for each bound how many durations are at most that long; the last has no bound, and counts all.

    Durations of which only the total is known are in the last alone. Where there are no others it is all there is:
    a quantile would be a guess.
    """
    if histogram.without_bucket and not histogram.counts:
        return [(INFINITE, histogram.count)]
    found = [
        (repr(bound_s), sum(count for bucket, count in histogram.counts.items() if bucket <= end))
        for end, bound_s in zip(ENDS, BOUNDS_S, strict=True)
    ]
    return [*found, (INFINITE, histogram.count)]
