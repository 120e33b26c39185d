"""The background thread: if one of its steps fails, the others go on."""

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from poolhouse.process import pools
from poolhouse.reports.keeper import Keeper
from poolhouse.reports.publisher import Publisher
from poolhouse.reports.store import ReportStore
from tests.conftest import DEADLINE_S

TIMES = 3


class Counting(Publisher):
    """A publisher without readers that signals when it was called often enough."""

    def __init__(self) -> None:
        super().__init__(ReportStore("redis://127.0.0.1:1/0", prefix="p", ttl_s=5, timeout_s=1))
        self.count = 0
        self.often_enough = threading.Event()

    def publish(self) -> None:
        self.count += 1
        if self.count == TIMES:
            self.often_enough.set()


class Wrapper:
    """The methods of a wrapper that the keeper calls; each can fail."""

    def __init__(self, alias: str, failing: str, error: Exception) -> None:
        self.alias, self._failing, self._error = alias, failing, error
        self.answered: list[str] = []

    def _answer(self, question: str) -> None:
        if question == self._failing:
            raise self._error
        self.answered.append(question)

    def look_for_leaks(self) -> None:
        self._answer("look_for_leaks")

    def pool_if_made(self) -> object:
        self._answer("pool_if_made")
        return self

    def keep_warm(self, within_s: float) -> None:
        self._answer("keep_warm")


@pytest.fixture
def run() -> Iterator[Callable[[], None]]:
    """Let a keeper run several rounds, and fail if it does not."""
    publisher = Counting()
    keeper = Keeper(publisher, 0.01)

    def go_round() -> None:
        keeper.start()
        assert publisher.often_enough.wait(DEADLINE_S), "the keeper's thread has ended"

    yield go_round
    keeper.stop()


@pytest.mark.parametrize(
    ("failing", "still_done", "task"),
    [
        ("look_for_leaks", "keep_warm", "looking for leak suspects"),
        ("keep_warm", "look_for_leaks", "opening MIN_SIZE connections"),
    ],
)
def test_a_failing_step_is_logged_once_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    run: Callable[[], None],
    *,
    failing: str,
    still_done: str,
    task: str,
) -> None:
    wrappers = [Wrapper("default", failing, RuntimeError("can't start new thread")), Wrapper("other", "", Exception())]
    monkeypatch.setattr(pools, "lending_wrappers", lambda: wrappers)
    with caplog.at_level(logging.WARNING, "poolhouse.reports.keeper"):
        run()
    assert all(wrapper.answered.count(still_done) >= TIMES for wrapper in wrappers)
    assert [record.getMessage() for record in caplog.records] == [
        f"default: {task} failed: RuntimeError: can't start new thread"
    ]


def test_reports_continue_when_a_pool_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, run: Callable[[], None]
) -> None:
    def unreadable() -> list[Wrapper]:
        raise TypeError("its engine was changed")

    monkeypatch.setattr(pools, "lending_wrappers", unreadable)
    with caplog.at_level(logging.WARNING, "poolhouse.reports.keeper"):
        run()
    assert [record.getMessage() for record in caplog.records] == [
        "reading the pools failed: TypeError: its engine was changed"
    ]
