"""A job's rate, now and overall, and the time left."""

import pytest

from telemetry.watch import Pace


def test_the_current_rate_is_of_the_last_seconds_and_the_time_left_of_the_overall_rate() -> None:
    pace = Pace()
    for second in range(21):  # 100 rows/s for ten seconds, then 1,000
        pace.note(100 * min(second, 10) + 1000 * max(second - 10, 0), float(second))
    assert pace.rows_per_s_now == pytest.approx(1000)
    assert pace.rows_per_s == pytest.approx(550)
    assert pace.remaining_s(5500) == pytest.approx(10)


def test_the_time_left_is_unknown_before_any_progress() -> None:
    pace = Pace()
    pace.note(0, 0.0)
    pace.note(0, 1.0)
    assert (pace.rows_per_s_now, pace.rows_per_s, pace.remaining_s(5)) == (0, 0, None)
