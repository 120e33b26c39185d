"""Loads as h2load's options, and its log as answers."""

import math
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from lab.answers import Answers, Log
from lab.generator import Closed, Constant, Load, Loading

LOG = "1000000\t200\t1000\n1000000\t200\t3000\n1000000\t202\t200000\n1000000\t503\t250000\n"


def answers_of(text: str) -> Answers:
    return Answers(2.0, Log(text).between(0, 10), unanswered=0, is_steady=True)


def log_of(*requests: tuple[float, float]) -> Log:
    """The log of requests, each with its beginning and its end in seconds."""
    return Log("".join(f"{begin_s * 1e6:.0f}\t200\t{(end_s - begin_s) * 1e6:.0f}\n" for begin_s, end_s in requests))


def test_a_closed_loop_ends_by_time() -> None:
    assert Closed(16).options(0.5) == ["--clients=16", "--duration=500ms"]


def test_a_constant_rate_is_divided_over_the_clients_and_ends_by_number() -> None:
    options = Constant(400, clients=40).options(3)
    assert "--rps=10" in options
    assert "--requests=1200" in options
    assert {"--rate=4", "--rate-period=10ms"} < set(options)  # all have begun when the first asks again
    assert {"--rate=1", "--rate-period=20ms"} < set(Constant(50, clients=30).options(3))


@pytest.mark.parametrize(("clients", "shares"), [(8, [3, 3, 2]), (1, [1, 0, 0])])
def test_each_address_has_its_share_of_the_clients(clients: int, shares: list[int]) -> None:
    assert Closed(clients).shared(3) == [Closed(share) for share in shares]
    assert Constant(10.0 * clients, clients).shared(3) == [Constant(10.0 * share, share) for share in shares]


def test_a_log_becomes_answers() -> None:
    answers = answers_of(LOG)
    assert answers.good == 3
    assert answers.statuses == {200: 2, 202: 1, 503: 1}
    assert answers.latency(200) == {"p50_ms": 1.0, "p95_ms": 3.0, "p99_ms": 3.0, "max_ms": 3.0, "mean_ms": 2.0}
    assert answers.latency(200, 202) == {
        "mean_ms": 68.0,
        "p50_ms": 3.0,
        "p95_ms": 200.0,
        "p99_ms": 200.0,
        "max_ms": 200.0,
    }


def test_what_ends_in_the_time_counts_whenever_it_was_asked() -> None:
    log = log_of((1.0, 1.9), (1.5, 2.5), (2.1, 2.2), (2.8, 3.1))
    assert sorted(log.between(2.0, 3.0)[200]) == pytest.approx([100, 1000])


def test_nothing_answered_has_no_latency() -> None:
    assert answers_of("").latency() is None


def test_clients_that_are_never_answered_are_seen() -> None:
    answered_at_once = log_of(*((n / 10, (n + 1) / 10) for n in range(30)))
    assert answered_at_once.in_hand(1, 2.95) == pytest.approx([2.9])
    assert answered_at_once.in_hand(4, 2.95) == pytest.approx([-math.inf, -math.inf, -math.inf, 2.9])


def test_a_client_that_is_no_longer_answered_is_seen_by_when_it_asked() -> None:
    log = log_of(*((n / 10, (n + 1) / 10) for n in range(30)), (0, 0.25), (0.25, 0.5))
    assert log.in_hand(2, 2.95) == pytest.approx([0.5, 2.9])


def test_requests_that_are_answered_later_are_in_hand() -> None:
    assert log_of((1.0, 2.0), (2.0, 3.0), (1.0, 4.0)).in_hand(2, 2.5) == pytest.approx([-math.inf, 2.0])


def test_a_rate_that_was_not_asked_for_is_told() -> None:
    assert Constant(100, clients=10).keeps_up(99)
    assert not Constant(100, clients=10).keeps_up(90)


def served(answers: int, tmp_path: Path, how: Load) -> Loading:
    """Load under way that has so many answers."""
    log = tmp_path / "log"
    log.write_text("1\t200\t1\n" * answers)
    asking = Popen(["/bin/sleep", "60"], stdout=PIPE, text=True)
    return Loading(how, [(how, asking, log)])


@pytest.mark.parametrize(("answers", "is_steady"), [(20, True), (19, False)])
def test_a_closed_loop_is_steady_when_its_clients_have_been_answered_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: int, is_steady: bool
) -> None:
    monkeypatch.setattr("lab.generator.WARM_UP_S", 0)
    monkeypatch.setattr("lab.generator.WARM_UP_MOST_S", 0)
    under_way = served(answers, tmp_path, Closed(10))
    under_way.warm_up()
    assert under_way.answers(0, 1).is_steady is is_steady


def test_a_load_generator_that_fails_says_why(tmp_path: Path) -> None:
    failing = Popen(["/bin/sh", "-c", "echo no such option; exit 1"], stdout=PIPE, text=True)
    failing.wait()
    with pytest.raises(RuntimeError, match="no such option"):
        Loading(Closed(1), [(Closed(1), failing, tmp_path / "log")]).answers(0, 1)


@pytest.mark.parametrize("line", ["garbage", "1\t200"])
def test_a_log_that_is_not_understood_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match="expected three fields: start in µs"):
        Log(f"{line}\n")
