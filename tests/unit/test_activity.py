"""Recent activity: the difference to a sample that is old enough."""

from poolhouse.measures.histogram import Histogram
from poolhouse.process.activity import NOW_S, RECENT_S, SAMPLE_INTERVAL_S, Activity, Past


def activity(*durations_s: float, errors: int = 0, timeouts: int = 0) -> Activity:
    histogram = Histogram()
    for duration_s in durations_s:
        histogram.record(duration_s)
    return Activity("default", histogram, errors, timeouts)


def test_all_activity_is_recent_in_a_process_first_minutes() -> None:
    past = Past()
    for second in range(0, RECENT_S, SAMPLE_INTERVAL_S):
        done = activity(*[0.001] * second, errors=second)
        assert past.recent([done], 1000.0 + second) == (done,)


def test_activity_before_the_window_is_not_recent() -> None:
    past = Past()
    slow = activity(*[2.0] * 100, errors=7, timeouts=3)
    past.recent([slow], 0.0)
    later = activity(*[2.0] * 100, *[0.001] * 50, errors=8, timeouts=3)
    (recent,) = past.recent([later], float(RECENT_S))
    assert (recent.statements.count, recent.errors, recent.timeouts) == (50, 1, 0)
    assert recent.statements.total_s < 0.051
    (quiet,) = past.recent([later], 2.0 * RECENT_S)
    assert (quiet.statements.count, quiet.errors) == (0, 0)


def test_the_window_is_too_long_by_one_sample_at_most() -> None:
    past = Past()
    for second in range(3 * RECENT_S):
        (recent,) = past.recent([activity(errors=second)], float(second))
    assert RECENT_S <= recent.errors < RECENT_S + SAMPLE_INTERVAL_S


def test_without_statements_the_error_rate_is_unknown() -> None:
    assert activity().error_share is None
    assert activity(0.1, 0.1, 0.1, 0.1, errors=1).error_share == 0.25


def waited(*durations_s: float, connects: int = 0, connect_errors: int = 0) -> Activity:
    wait = activity(*durations_s).statements
    return Activity("default", connects=connects, connect_errors=connect_errors, wait=wait, hold=wait)


def test_recent_activity_includes_waits_and_connect_errors() -> None:
    recent = waited(0.1, 7.0, 7.0, connects=5, connect_errors=3).since(waited(0.1, connects=4))
    assert (recent.connects, recent.connect_errors) == (1, 3)
    for histogram in (recent.wait, recent.hold):
        assert histogram
        assert (histogram.count, histogram.total_s) == (2, 14.0)
    assert activity().since(activity()).wait is None, "an engine that does not tell"


def test_all_waits_of_a_recreated_pool_are_recent() -> None:
    recent = waited(7.0).since(waited(0.1, 0.1))
    assert recent.wait
    assert (recent.wait.count, recent.wait.total_s) == (1, 7.0)


def test_merging_ignores_values_that_are_not_reported() -> None:
    merged = Activity.merged("default", [activity(), waited(7.0, connects=1), waited(0.1, connect_errors=2)])
    assert (merged.connects, merged.connect_errors) == (1, 2)
    assert merged.wait
    assert merged.wait.count == 2


def test_all_timeouts_of_a_recreated_pool_are_recent() -> None:
    assert activity(timeouts=2).since(activity(timeouts=9)).timeouts == 2


def test_current_timeouts_are_those_of_the_last_minute() -> None:
    past = Past()
    (young,) = past.recent([activity(timeouts=2)], 0.0)
    assert young.timeouts_now == 2, "all of a young process is of now"
    past.recent([activity(timeouts=9)], float(SAMPLE_INTERVAL_S))
    (busy,) = past.recent([activity(timeouts=9)], float(NOW_S))
    assert (busy.timeouts, busy.timeouts_now) == (9, 7)
    (quiet,) = past.recent([activity(timeouts=9)], float(NOW_S + SAMPLE_INTERVAL_S))
    assert (quiet.timeouts, quiet.timeouts_now) == (9, 0)
    assert Activity.merged("default", [busy, busy]).timeouts_now == 14
