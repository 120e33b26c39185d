"""Loads as h2load's options, and its log as answers."""

import pytest

from lab.generator import Closed, Constant, _read

LOG = "1000\t200\t1000\n1001\t200\t3000\n1002\t202\t200000\n1003\t503\t250000\n1004\t-1\t9000000\n"


def test_a_closed_loop_ends_by_time() -> None:
    assert Closed(16).options(0.5) == ["--clients=16", "--duration=500ms"]


def test_a_constant_rate_is_divided_over_the_clients_and_ends_by_number() -> None:
    options = Constant(400, clients=40).options(3)
    assert "--rps=10" in options
    assert "--requests=1200" in options
    assert "--rate=4" in options  # clients in each 10 ms: all have begun when the first asks again


@pytest.mark.parametrize(("clients", "shares"), [(8, [3, 3, 2]), (1, [1, 0, 0])])
def test_each_address_has_its_share_of_the_clients(clients: int, shares: list[int]) -> None:
    assert Closed(clients).shared(3) == [Closed(share) for share in shares]
    assert Constant(10.0 * clients, clients).shared(3) == [Constant(10.0 * share, share) for share in shares]


def test_a_log_becomes_answers() -> None:
    answers = _read(LOG, 2.0)
    assert answers.good == 3
    assert dict(answers.statuses) == {200: 2, 202: 1, 503: 1}
    assert answers.unanswered == 1
    assert answers.latency(200) == {"p50_ms": 1.0, "p95_ms": 3.0, "p99_ms": 3.0, "max_ms": 3.0}
    assert answers.latency() == {"p50_ms": 3.0, "p95_ms": 200.0, "p99_ms": 200.0, "max_ms": 200.0}


def test_nothing_answered_has_no_latency() -> None:
    assert _read("", 1.0).latency() is None


@pytest.mark.parametrize("line", ["garbage", "1\t200"])
def test_a_log_that_is_not_understood_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match="unpack"):
        _read(f"{line}\n", 1.0)
