"""Rate limits of log lines, per key and in total."""

import os
import signal
from collections.abc import Callable

from poolhouse.metrics import views
from poolhouse.tracing import statements
from poolhouse.tracing.throttle import LINES_MAX, REMEMBERED_MAX, Throttle


def test_one_line_per_interval_with_the_number_held_back() -> None:
    throttle = Throttle()
    said = [throttle.admit("a", now_s=now_s, interval_s=10) for now_s in (0, 1, 9.9, 10, 11, 25)]
    assert [held and held.alike for held in said] == [0, None, None, 2, None, 1]


def test_keys_are_throttled_independently() -> None:
    throttle = Throttle()
    assert [throttle.admit(key, now_s=0, interval_s=10) for key in ("a", "b", "a")] == [(0, 0), (0, 0), None]


def test_without_an_interval_nothing_is_held_back() -> None:
    throttle = Throttle()
    assert [throttle.admit("a", now_s=5, interval_s=0) for _ in range(2 * LINES_MAX)] == [(0, 0)] * (2 * LINES_MAX)


def test_the_memory_is_bounded_and_recent_keys_are_kept() -> None:
    throttle = Throttle()
    for number in range(10 * REMEMBERED_MAX):
        throttle.admit("often", now_s=0, interval_s=10)
        throttle.admit(str(number), now_s=0, interval_s=10)
    assert len(throttle._logged) == REMEMBERED_MAX
    held = throttle.admit("often", now_s=10, interval_s=10)
    assert held
    assert held.alike == 10 * REMEMBERED_MAX - 1


def test_the_total_number_of_lines_is_bounded() -> None:
    throttle = Throttle()
    keys = [str(number) for number in range(REMEMBERED_MAX + 100)]  # each is forgotten before it comes again
    said = [throttle.admit(key, now_s=moment, interval_s=10) for moment in (0, 1, 2) for key in keys]
    assert sum(held is not None for held in said) == LINES_MAX + 2 * LINES_MAX // 10


def test_lines_dropped_by_the_total_limit_are_counted_in_the_next_line() -> None:
    throttle = Throttle()
    for number in range(LINES_MAX + 7):
        throttle.admit(str(number), now_s=0, interval_s=10)
    assert throttle.admit("a", now_s=1, interval_s=10) == (0, 7)
    assert throttle.admit(str(LINES_MAX), now_s=1, interval_s=10) == (1, 0), "it was held back, and not said"
    assert throttle.admit("0", now_s=1, interval_s=10) is None, "it was said a second ago"


def _ends_well_in_a_child(do: Callable[[], object]) -> bool:
    """Run a function in a forked child; return True if it came to its end there."""
    if (child := os.fork()) == 0:
        signal.alarm(5)
        try:
            do()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_child_does_not_inherit_a_held_lock() -> None:
    slow, answers = statements._slow, views.recent
    with slow._lock, answers._lock:  # as another thread has them that does not exist in the child
        assert _ends_well_in_a_child(lambda: statements._slow.admit("a", now_s=0, interval_s=10))
        assert _ends_well_in_a_child(views.recent.forget)
