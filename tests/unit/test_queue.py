"""The order in which batches are enqueued."""

from hypothesis import given
from hypothesis import strategies as st

from telemetry.queue import spread


def test_batches_that_are_loaded_at_the_same_time_are_far_apart() -> None:
    assert spread([0, 1, 2, 3, 4], lanes=2) == [0, 3, 1, 4, 2]
    assert spread([0, 1, 2, 3, 4, 5, 6], lanes=3) == [0, 3, 6, 1, 4, 2, 5]


def test_one_worker_gets_the_batches_in_order() -> None:
    assert spread([0, 1, 2], lanes=1) == [0, 1, 2]


@given(st.integers(0, 200), st.integers(1, 20))
def test_each_batch_is_sent_once(count: int, lanes: int) -> None:
    assert sorted(spread(range(count), lanes)) == list(range(count))
