"""Loads as h2load's options, and its log as answers."""

import math

import pytest

from lab.answers import Answers, Log
from lab.generator import Closed, Constant

LOG = "1000000\t200\t1000\n1000000\t200\t3000\n1000000\t202\t200000\n1000000\t503\t250000\n1000000\t-1\t900000\n"


def answers_of(text: str) -> Answers:
    return Answers(2.0, Log(text).between(0, 10), cut_off=0, unanswered=0, rate_kept=None)


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
    assert Log(LOG).cut_off(0, 10) == 1
    assert Log(LOG).cut_off(0, 1.5) == 0
    assert answers.latency(200) == {"p50_ms": 1.0, "p95_ms": 3.0, "p99_ms": 3.0, "max_ms": 3.0}
    assert answers.latency(200, 202) == {"p50_ms": 3.0, "p95_ms": 200.0, "p99_ms": 200.0, "max_ms": 200.0}


def test_what_ends_in_the_time_counts_whenever_it_was_asked() -> None:
    log = log_of((1.0, 1.9), (1.5, 2.5), (2.1, 2.2), (2.8, 3.1))
    assert sorted(log.between(2.0, 3.0)[200]) == pytest.approx([100, 1000])


def test_nothing_answered_has_no_latency() -> None:
    assert answers_of("").latency() is None


def test_a_client_that_is_never_answered_is_seen() -> None:
    answered_at_once = [(n / 10, (n + 1) / 10) for n in range(30)]
    assert Closed(1).unanswered(log_of(*answered_at_once), 1.0, 3.0) == 0
    assert Closed(4).unanswered(log_of(*answered_at_once), 1.0, 3.0) == 3


def test_a_client_that_is_no_longer_answered_is_seen_by_when_it_asked() -> None:
    log = log_of(*((n / 10, (n + 1) / 10) for n in range(30)), (0, 0.25), (0.25, 0.5))
    assert log.in_hand(2, 2.95) == pytest.approx([0.5, 2.9], abs=0.002)
    assert Closed(2).unanswered(log, 1.0, 2.95) == 1
    assert Closed(2).unanswered(log, 0.2, 2.95) == 0  # it was answered after that


def test_before_anything_is_answered_all_wait_since_the_beginning() -> None:
    assert log_of().in_hand(2, 1.0) == [-math.inf, -math.inf]


def test_a_rate_that_was_not_asked_for_is_told() -> None:
    assert Constant(100, clients=10).rate_kept(99)
    assert not Constant(100, clients=10).rate_kept(90)
    assert Closed(10).rate_kept(5) is None


@pytest.mark.parametrize("line", ["garbage", "1\t200"])
def test_a_log_that_is_not_understood_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match="expected start in µs"):
        Log(f"{line}\n")
