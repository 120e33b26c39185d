"""What turns come to, and the verdict that follows by the rule."""

from typing import Any

from lab.matrix import Cell, Turn
from lab.summary import Place, rows, verdict

PLACE = Place("gthread", "one")


def turn(strategy: str, rate: float, *, clients: int = 8, number: int = 0, **seen: Any) -> Turn:
    found = {
        "requests_per_s": rate,
        "latency": {"p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "max_ms": 4.0},
        "errors": {},
        "answers": 1000,
        "connections_opened_per_s": 0.0,
        "server_connections": {"max": 20, "mean": 18.0},
        "wait_ms": {"pool_mean": None, "pool_p95": None, "pgbouncer_mean": None},
        **seen,
    }
    return Turn(Cell(strategy, PLACE.model, PLACE.workload, clients, number), found)


def connections(count: int) -> dict[str, float]:
    return {"max": count, "mean": float(count)}


def test_a_row_is_the_median_of_its_rounds() -> None:
    (row,) = rows(turn("native", rate, number=number) for number, rate in enumerate((10.0, 90.0, 20.0)))
    assert (row.requests_per_s, row.rates) == (20.0, [10.0, 90.0, 20.0])
    assert row.answers == 3000


def test_waits_in_the_pool_and_in_pgbouncer_add_up_and_silence_is_no_zero() -> None:
    wait = {"pool_mean": 2.0, "pool_p95": 5.0, "pgbouncer_mean": 1.0}
    (told,) = rows([turn("native", 1, wait_ms=wait)])
    (silent,) = rows([turn("none", 1)])
    assert (told.wait_ms, silent.wait_ms) == (3.0, None)


def test_the_fastest_wins() -> None:
    table = rows([turn("none", 100), turn("native", 1000), turn("persistent", 800)])
    judged = verdict(PLACE, table)
    assert judged.winner is not None
    assert judged.winner.strategy == "native"
    assert [row.strategy for row in judged.equals] == ["native"]


def test_of_the_equally_fast_the_one_with_the_fewest_connections_wins() -> None:
    table = rows(
        [
            turn("persistent", 1000, server_connections=connections(35)),
            turn("queuepool", 920, server_connections=connections(20)),
            turn("none", 890, server_connections=connections(1)),
        ]
    )
    judged = verdict(PLACE, table)
    assert [row.strategy for row in judged.equals] == ["queuepool", "persistent"]
    assert judged.sentence == (
        "`queuepool`: 920 requests/s with 20 connections on the server. "
        "As fast, with more connections or a longer p99: `persistent`."
    )


def test_errors_at_any_number_of_clients_disqualify() -> None:
    table = rows(
        [
            turn("persistent", 1000, clients=8, errors={"other error": 2}),
            turn("persistent", 1000, clients=32),
            turn("queuepool", 500, clients=8),
            turn("queuepool", 400, clients=32, errors={"other error": 1}),
        ]
    )
    judged = verdict(PLACE, table)
    assert judged.winner is not None
    assert (judged.winner.strategy, judged.winner.clients) == ("queuepool", 32)
    assert judged.failing == ("persistent",)
    assert judged.sentence.endswith("With errors: `persistent`.")


def test_a_strategy_that_answered_nothing_does_not_qualify() -> None:
    judged = verdict(PLACE, rows([turn("none", 0, answers=0, latency=None)]))
    assert judged.winner is None
    assert judged.sentence == "No strategy answers without errors at every number of clients."
