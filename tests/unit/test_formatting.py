"""Durations and counts formatted for people."""

import pytest

from poolhouse.formatting import counted, duration, percent


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0.0 µs"),
        (3.14e-6, "3.1 µs"),
        (250e-6, "250 µs"),
        (0.9996e-3, "1.0 ms"),
        (0.0042, "4.2 ms"),
        (0.0099, "9.9 ms"),
        (0.00996, "10 ms"),
        (0.087, "87 ms"),
        (0.9996, "1.0 s"),
        (12.34, "12.3 s"),
        (99.9, "99.9 s"),
        (270, "4.5 min"),
        (7200, "2.0 h"),
        (3 * 86400, "3.0 d"),
    ],
)
def test_a_duration_has_two_or_three_digits_and_the_unit_that_fits(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_a_count_of_one_has_the_singular() -> None:
    assert (counted(1, "caller"), counted(0, "caller"), counted(1200, "caller")) == (
        "1 caller",
        "0 callers",
        "1,200 callers",
    )


def test_an_unknown_share_is_a_dash() -> None:
    assert (percent(0.4286), percent(None)) == ("42.9 %", "–")
