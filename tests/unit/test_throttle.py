"""How often the same thing is said."""

from poolhouse.tracing.throttle import REMEMBERED_MAX, Throttle


def test_one_line_an_interval_and_the_next_tells_how_many_were_held_back() -> None:
    throttle = Throttle()
    said = [throttle.admit("a", now_s=now_s, interval_s=10) for now_s in (0, 1, 9.9, 10, 11, 25)]
    assert said == [0, None, None, 2, None, 1]


def test_each_key_is_for_itself() -> None:
    throttle = Throttle()
    assert [throttle.admit(key, now_s=0, interval_s=10) for key in ("a", "b", "a")] == [0, 0, None]


def test_without_an_interval_nothing_is_held_back() -> None:
    throttle = Throttle()
    assert [throttle.admit("a", now_s=5, interval_s=0) for _ in range(3)] == [0, 0, 0]


def test_its_memory_is_bounded_and_the_key_that_came_last_is_kept() -> None:
    throttle = Throttle()
    for number in range(10 * REMEMBERED_MAX):
        throttle.admit(str(number), now_s=0, interval_s=10)
        throttle.admit("often", now_s=0, interval_s=10)
    assert len(throttle._said) == REMEMBERED_MAX
    assert throttle.admit("often", now_s=10, interval_s=10) == 10 * REMEMBERED_MAX - 1
