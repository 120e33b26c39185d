"""Medians over the rounds of a comparison, for each strategy in each setting."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from lab.matrix import Turn

FAULTLESS_SHARE = 0.999
ANSWERS_FOR = {"p95_ms": 20, "p99_ms": 100}
"""how many good answers a percentile needs: of fewer, it would only be the slowest answer"""
PARTIES = ("web", "timescale", "pgbouncer")
"""whose processor time and memory are measured"""


@dataclass(frozen=True)
class Setting:
    """What strategies are compared in: a model of web server and a workload."""

    model: str
    workload: str


@dataclass(frozen=True)
class Row:
    """A strategy in a setting with a number of clients, over all rounds."""

    strategy: str
    setting: Setting
    clients: int
    turns: tuple[Turn, ...]

    @property
    def rates(self) -> list[float]:
        """Requests/s that were answered without an error, by round."""
        return [turn.seen["requests_per_s"] for turn in self.turns]

    @property
    def requests_per_s(self) -> float:
        """The median of the rates."""
        return median(self.rates)

    def latency_ms(self, which: str, of: str = "latency") -> float | None:
        """Return the median of a percentile such as p99_ms; None if there were too few answers for it."""
        found = [turn.seen[of][which] for turn in self.turns if turn.seen[of]]
        return median(found) if found and self.good >= ANSWERS_FOR.get(which, 0) else None

    @property
    def errors(self) -> Counter[str]:
        """The number of errors of each kind in all rounds."""
        return sum((Counter(turn.seen["errors"]) for turn in self.turns), Counter())

    @property
    def answers(self) -> int:
        """The number of requests in all rounds."""
        return sum(turn.seen["answers"] for turn in self.turns)

    @property
    def good(self) -> int:
        """The number of requests that were answered without an error."""
        return self.answers - self.errors.total()

    @property
    def good_share(self) -> float:
        """The share of requests that were answered without an error."""
        return self.good / self.answers if self.answers else 0.0

    @property
    def has_errors(self) -> bool:
        """True if too many requests failed for the strategy to qualify."""
        return self.good_share < FAULTLESS_SHARE

    @property
    def is_steady(self) -> bool:
        """True if the load had warmed up and kept its rate in every round."""
        return all(turn.seen["steady"] for turn in self.turns)

    @property
    def is_faultless(self) -> bool:
        """True if the strategy qualifies for a verdict."""
        return not self.has_errors and self.is_steady

    @property
    def most_connections(self) -> int:
        """The largest number of connections that was seen on the server."""
        return int(max(turn.seen["server_connections"]["max"] for turn in self.turns))

    @property
    def opened_per_s(self) -> float:
        """The median of connections opened on the server per second."""
        return float(median(turn.seen["connections_opened_per_s"] for turn in self.turns))

    @property
    def pool_wait_ms(self) -> float | None:
        """The median of the mean wait time for each checkout; None if no pool reports it."""
        return self._wait_ms("pool_mean")

    @property
    def pgbouncer_wait_ms(self) -> float | None:
        """The median of the mean wait in PgBouncer for each transaction; None without a PgBouncer."""
        return self._wait_ms("pgbouncer_mean")

    def _wait_ms(self, which: str) -> float | None:
        waits = [turn.seen["wait_ms"][which] for turn in self.turns if turn.seen["wait_ms"][which] is not None]
        return median(waits) if waits else None

    def processor_us(self, who: str) -> float | None:
        """Return the median processor time of the web or a server for each answer; None without answers."""
        measured = [turn.seen["processor_us_a_request"].get(who, 0) for turn in self.turns]
        known = [us for us in measured if us is not None]
        return float(median(known)) if known else None

    def memory_mib(self, who: str) -> float:
        """Return the median memory of the web or a server."""
        return float(median(turn.seen["memory_mib"].get(who, 0) for turn in self.turns))

    def as_document(self) -> dict[str, Any]:
        """Return it as JSON data; null is a figure that nothing reports."""
        return {
            "strategy": self.strategy,
            "model": self.setting.model,
            "workload": self.setting.workload,
            "clients": self.clients,
            "requests_per_s": self.requests_per_s,
            "rounds": self.rates,
            "steady": self.is_steady,
            **{name: self.latency_ms(name) for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")},
            "p99_ms_of_fast": self.latency_ms("p99_ms", "latency_of_fast"),
            "errors": dict(self.errors),
            "answers": self.answers,
            "wait_ms": {"pool": self.pool_wait_ms, "pgbouncer": self.pgbouncer_wait_ms},
            "connections_opened_per_s": self.opened_per_s,
            "server_connections_max": self.most_connections,
            "processor_us_a_request": {who: self.processor_us(who) for who in PARTIES},
            "memory_mib": {who: self.memory_mib(who) for who in PARTIES},
        }


def rows(turns: Iterable[Turn]) -> list[Row]:
    """Return a row for the rounds of each cell."""
    found: dict[tuple[str, str, str, int], list[Turn]] = defaultdict(list)
    for turn in turns:
        cell = turn.cell
        found[cell.model, cell.workload, cell.strategy, cell.clients].append(turn)
    return [
        Row(strategy, Setting(model, workload), clients, tuple(seen))
        for (model, workload, strategy, clients), seen in found.items()
    ]


def settings(table: Sequence[Row]) -> list[Setting]:
    """Return the settings, each once."""
    return list(dict.fromkeys(row.setting for row in table))


def within(setting: Setting, table: Iterable[Row]) -> list[Row]:
    """Return the rows of a setting."""
    return [row for row in table if row.setting == setting]
