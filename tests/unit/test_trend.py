"""The curves of --watch, and rates between two reports."""

from dataclasses import replace

import pytest

from poolhouse.display.trend import CheckoutRates, sparkline
from poolhouse.process.pools import PoolState
from poolhouse.reports.report import ProcessReport


def report(lent: int | None, reported_at: float, *, started_at: float = 0.0) -> ProcessReport:
    counts = {} if lent is None else {"lent": lent}
    pool = PoolState("default", "any", "queuepool", 5, 10, 0, 0, 0, counts=counts)
    return ProcessReport("web@box:1", "web", "box", 1, started_at, reported_at, (pool,))


@pytest.mark.parametrize(
    ("values", "top", "curve"),
    [
        ([0, 0, 0], None, "▁▁▁"),
        ([0, 5, 10], None, "▁▅█"),
        ([0, 5, 10], 20, "▁▃▅"),
        ([1, 1000], None, "▂█"),
        ([None, 3], None, " █"),
        ([], 10, ""),
        ([25], 20, "█"),
    ],
)
def test_curves_follow_their_values(values: list[float | None], top: float | None, curve: str) -> None:
    assert sparkline(values, top) == curve


def test_a_rate_is_the_checkouts_between_two_reports() -> None:
    rates = CheckoutRates()
    assert rates.note([report(100, 10.0)]) == {"web@box:1/": None}
    assert rates.note([report(150, 12.0)]) == {"web@box:1/": 25.0}
    assert rates.note([report(150, 12.0)]) == {"web@box:1/": 25.0}, "the report of the last look tells nothing new"
    assert rates.note([report(150, 13.0)]) == {"web@box:1/": 0.0}


def test_a_restarted_process_has_no_rate_yet() -> None:
    rates = CheckoutRates()
    rates.note([report(100, 10.0)])
    assert rates.note([report(3, 12.0, started_at=11.0)]) == {"web@box:1/": None}


def test_a_process_without_checkout_counts_has_no_rate() -> None:
    rates = CheckoutRates()
    rates.note([report(None, 10.0)])
    assert rates.note([replace(report(None, 11.0))]) == {"web@box:1/": None}


def test_processes_that_share_a_name_have_rates_of_their_own() -> None:
    rates = CheckoutRates()
    for lent, reported_at, expected in ((100, 10.0, [None, None]), (150, 12.0, [25.0, 500.0])):
        one, other = report(lent, reported_at), replace(report(lent * 20, reported_at), run="other")
        assert list(rates.note([one, other]).values()) == expected
