"""What the turns of a comparison come to: medians over the rounds, for each strategy in each setting."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from lab.matrix import Turn

FAULTLESS_SHARE = 0.999
ANSWERS_FOR = {"p95_ms": 20, "p99_ms": 100}
"""how many good answers a percentile needs: of fewer, it is no more than the slowest of them"""
PARTIES = ("web", "timescale", "pgbouncer")
"""whose processor time and memory are told"""


@dataclass(frozen=True)
class Setting:
    """What strategies are compared in: a web server's model and what is asked of it."""

    model: str
    workload: str


@dataclass(frozen=True)
class Row:
    """A strategy in a setting under so many clients, over all rounds."""

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
        """Their median."""
        return median(self.rates)

    def latency_ms(self, which: str, of: str = "latency") -> float | None:
        """Give the median of a percentile, as p99_ms; None where too few were answered to tell it."""
        found = [turn.seen[of][which] for turn in self.turns if turn.seen[of]]
        return median(found) if found and self.good >= ANSWERS_FOR.get(which, 0) else None

    @property
    def errors(self) -> Counter[str]:
        """How many errors of each kind there were in all rounds."""
        return sum((Counter(turn.seen["errors"]) for turn in self.turns), Counter())

    @property
    def answers(self) -> int:
        """How many requests were made in all rounds."""
        return sum(turn.seen["answers"] for turn in self.turns)

    @property
    def good(self) -> int:
        """How many were answered without an error."""
        return self.answers - self.errors.total()

    @property
    def good_share(self) -> float:
        """Their share of the requests."""
        return self.good / self.answers if self.answers else 0.0

    @property
    def has_errors(self) -> bool:
        """Whether more than next to none of the answers were errors."""
        return self.good_share < FAULTLESS_SHARE

    @property
    def is_steady(self) -> bool:
        """Whether every round shows the load as it was to be, and not how it began."""
        return all(turn.seen["steady"] for turn in self.turns)

    @property
    def is_faultless(self) -> bool:
        """Whether it qualifies: it has no errors, and what was measured is what was to be asked."""
        return not self.has_errors and self.is_steady

    @property
    def most_connections(self) -> int:
        """The most connections that the server was seen to have."""
        return int(max(turn.seen["server_connections"]["max"] for turn in self.turns))

    @property
    def opened_per_s(self) -> float:
        """The median of connections opened on the server per second."""
        return float(median(turn.seen["connections_opened_per_s"] for turn in self.turns))

    @property
    def pool_wait_ms(self) -> float | None:
        """The median of the mean wait for a connection of the pool, by loan; None where there is no pool that tells."""
        return self._wait_ms("pool_mean")

    @property
    def pgbouncer_wait_ms(self) -> float | None:
        """The median of the mean wait for one of PgBouncer's, by transaction; None where there is no PgBouncer."""
        return self._wait_ms("pgbouncer_mean")

    def _wait_ms(self, which: str) -> float | None:
        told = [turn.seen["wait_ms"][which] for turn in self.turns if turn.seen["wait_ms"][which] is not None]
        return median(told) if told else None

    def processor_us(self, who: str) -> float | None:
        """Give the median of processor time that a good answer took of the web or a server; None where none was."""
        told = [turn.seen["processor_us_a_request"].get(who, 0) for turn in self.turns]
        known = [us for us in told if us is not None]
        return float(median(known)) if known else None

    def memory_mib(self, who: str) -> float:
        """Give the median of what the web or a server had resident."""
        return float(median(turn.seen["memory_mib"].get(who, 0) for turn in self.turns))

    def as_document(self) -> dict[str, Any]:
        """Give it as JSON data; null is what nobody tells."""
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
    """Put the rounds of each cell together."""
    found: dict[tuple[str, str, str, int], list[Turn]] = defaultdict(list)
    for turn in turns:
        cell = turn.cell
        found[cell.model, cell.workload, cell.strategy, cell.clients].append(turn)
    return [
        Row(strategy, Setting(model, workload), clients, tuple(seen))
        for (model, workload, strategy, clients), seen in found.items()
    ]


def settings(table: Sequence[Row]) -> list[Setting]:
    """Give the settings, each once."""
    return list(dict.fromkeys(row.setting for row in table))


def within(setting: Setting, table: Iterable[Row]) -> list[Row]:
    """Give the rows of a setting."""
    return [row for row in table if row.setting == setting]
