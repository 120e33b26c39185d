"""The meter of a pool: checkouts, pool timeouts and the peak."""

import pytest

from poolhouse.measures.histogram import Histogram
from poolhouse.measures.meter import Meter


def test_a_pool_timeout_counts_as_a_wait_and_not_as_a_checkout() -> None:
    meter = Meter("default")
    for _ in range(2):
        meter.checked_out(0.001)
    for _ in range(60):
        meter.timed_out(0.5)
    read = meter.read()
    wait: Histogram = read["wait"]
    assert (read["counts"]["lent"], read["counts"]["timeouts"], wait.count) == (2, 60, 62)
    assert wait.quantile_s(0.95) == pytest.approx(0.5, rel=0.1)


def test_the_peak_is_the_most_connections_in_use_at_once() -> None:
    meter = Meter("default")
    assert meter.read()["peak"] == 0
    for _ in range(3):
        meter.checked_out(0)
    for _ in range(3):
        meter.checked_in(1)
    meter.checked_out(0)
    assert meter.read()["peak"] == 3


def test_many_timeouts_are_counted_in_time() -> None:
    meter = Meter("default")
    for _ in range(10_000):
        meter.timed_out(0.1)
    assert meter._timed_out.counted.count > 9_000
