"""The database use of a request or task, as it is counted."""

from types import SimpleNamespace

import pytest

from poolhouse.tracing import work as module
from poolhouse.tracing.work import Work


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The value of perf_counter: the last of these."""
    moments = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: moments[-1]))
    return moments


def test_a_hold_of_several_connections_ends_with_the_last_check_in(clock: list[float]) -> None:
    work = Work("request", "GET /")
    work.took(1.0)
    work.took(1.5)
    work.gave_back(2.0)
    clock.append(3.0)
    assert work.held_s() == 2.0, "it still has one"
    work.gave_back(4.0)
    clock.append(9.0)
    assert work.held_s() == 3.0


def test_hold_time_excludes_the_pause_between_two_leases(clock: list[float]) -> None:
    work = Work("request", "GET /")
    for began_at in (1.0, 5.0):
        work.took(began_at)
        work.gave_back(began_at + 1)
    clock.append(9.0)
    assert (work.held_s(), work.hold_s) == (2.0, 2.0)
