"""Histograms of durations: their figures after recording, merging and sending."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolhouse.measures.histogram import LAST_BUCKET, Histogram, bucket_end_s, bucket_of

durations = st.floats(0, 800, allow_nan=False)


def histogram_of(seconds: list[float]) -> Histogram:
    made = Histogram()
    for one in seconds:
        made.record(one)
    return made


@given(durations)
def test_a_duration_lies_within_its_bucket(seconds: float) -> None:
    bucket = bucket_of(seconds)
    assert seconds <= bucket_end_s(bucket) * (1 + 1e-9)
    assert bucket == 0 or seconds > bucket_end_s(bucket - 1) * (1 - 1e-9)


def test_durations_beyond_the_buckets_count_in_the_last_one() -> None:
    assert bucket_of(1e9) == LAST_BUCKET


@given(st.lists(durations), st.lists(durations))
def test_merging_equals_recording_everything_in_one_histogram(one: list[float], other: list[float]) -> None:
    merged = Histogram.merged([histogram_of(one), histogram_of(other)])
    together = histogram_of(one + other)
    assert merged.counts == together.counts
    assert merged.total_s == pytest.approx(together.total_s)


@given(st.lists(durations))
def test_a_histogram_survives_the_wire(seconds: list[float]) -> None:
    made = histogram_of(seconds)
    read = Histogram.from_wire(made.to_wire())
    assert (read.counts, read.without_bucket) == (made.counts, 0)
    assert read.total_s == pytest.approx(made.total_s, abs=1e-6)


def test_merged_percentiles_are_within_a_tenth_of_the_exact_ones() -> None:
    chance = random.Random(1)
    processes = [[chance.lognormvariate(-5, 1.5) for _ in range(500)] for _ in range(40)]
    truth = sorted(one for process in processes for one in process)
    merged = Histogram.merged(map(histogram_of, processes))
    for share in (0.5, 0.95, 0.99):
        assert merged.quantile_s(share) == pytest.approx(truth[int(share * len(truth))], rel=0.1)


def test_an_empty_histogram_has_no_mean_and_no_quantiles() -> None:
    assert Histogram().summary() == {"count": 0, "mean_s": None, "p50_s": None, "p95_s": None, "p99_s": None}
    assert Histogram(total_s=3.0, without_bucket=2).summary() == {
        "count": 2, "mean_s": 1.5, "p50_s": None, "p95_s": None, "p99_s": None
    }  # fmt: skip
