"""What the turns of a comparison come to: medians over the rounds, and a verdict for each workload."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from lab.matrix import Turn

FAULTLESS_SHARE = 0.999
EQUAL_SHARE = 0.9

RULE = (
    f"A strategy qualifies if at every number of clients at least {FAULTLESS_SHARE:.1%} of its answers are no errors. "
    "Of those that do, the fastest at the greatest number of clients sets the mark, and all that reach "
    f"{EQUAL_SHARE:.0%} of it count as equally fast: this machine cannot tell them apart. Of the equally fast, the one "
    "with the fewest connections on the server wins, and of those with the same number the one with the lowest p99."
)


@dataclass(frozen=True)
class Place:
    """What is compared: strategies in the same place."""

    model: str
    workload: str


@dataclass(frozen=True)
class Row:
    """A strategy in a place under so many clients, over all rounds."""

    strategy: str
    place: Place
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
        """Give the median of a percentile, as p99_ms; None where nothing was answered."""
        found = [turn.seen[of][which] for turn in self.turns if turn.seen[of]]
        return median(found) if found else None

    @property
    def errors(self) -> Counter[str]:
        """How many errors of each kind there were in all rounds."""
        return sum((Counter(turn.seen["errors"]) for turn in self.turns), Counter())

    @property
    def answers(self) -> int:
        """How many requests were made in all rounds."""
        return sum(turn.seen["answers"] for turn in self.turns)

    @property
    def good_share(self) -> float:
        """The share of requests that were answered without an error."""
        return 1 - self.errors.total() / self.answers if self.answers else 0.0

    @property
    def most_connections(self) -> int:
        """The most connections that the server was seen to have."""
        return int(max(turn.seen["server_connections"]["max"] for turn in self.turns))

    @property
    def opened_per_s(self) -> float:
        """The median of connections opened on the server per second."""
        return float(median(turn.seen["connections_opened_per_s"] for turn in self.turns))

    @property
    def wait_ms(self) -> float | None:
        """The median of the mean wait for a connection, in the pool or in PgBouncer; None where nobody tells."""
        waits = [turn.seen["wait_ms"] for turn in self.turns]
        told = [
            sum(wait[who] or 0 for who in ("pool_mean", "pgbouncer_mean"))
            for wait in waits
            if wait["pool_mean"] is not None or wait["pgbouncer_mean"] is not None
        ]
        return median(told) if told else None

    def processor_us(self, who: str) -> float:
        """Give the median of processor time that a request took of the web or a server."""
        return float(median(turn.seen["processor_us_a_request"].get(who, 0) for turn in self.turns))

    def memory_mib(self, who: str) -> float:
        """Give the median of what the web or a server had resident."""
        return float(median(turn.seen["memory_mib"].get(who, 0) for turn in self.turns))


def rows(turns: Iterable[Turn]) -> list[Row]:
    """Put the rounds of each cell together."""
    found: dict[tuple[str, str, str, int], list[Turn]] = defaultdict(list)
    for turn in turns:
        cell = turn.cell
        found[cell.model, cell.workload, cell.strategy, cell.clients].append(turn)
    return [
        Row(strategy, Place(model, workload), clients, tuple(seen))
        for (model, workload, strategy, clients), seen in found.items()
    ]


def places(table: Sequence[Row]) -> list[Place]:
    """Give the places, each once."""
    return list(dict.fromkeys(row.place for row in table))


@dataclass(frozen=True)
class Verdict:
    """Which strategy to take in a place."""

    place: Place
    winner: Row | None
    """at the greatest number of clients; None where no strategy qualifies"""
    equals: tuple[Row, ...]
    """those as fast as the fastest, the winner among them"""
    failing: tuple[str, ...]
    """strategies that do not qualify"""

    @property
    def sentence(self) -> str:
        """Say it."""
        if self.winner is None:
            return "No strategy answers without errors at every number of clients."
        said = (
            f"`{self.winner.strategy}`: {self.winner.requests_per_s:,.0f} requests/s with "
            f"{self.winner.most_connections} connections on the server."
        )
        if others := [row.strategy for row in self.equals if row is not self.winner]:
            said += f" As fast, with more connections or a longer p99: {_named(others)}."
        return said + (f" With errors: {_named(self.failing)}." if self.failing else "")


def _named(strategies: Iterable[str]) -> str:
    return ", ".join(f"`{strategy}`" for strategy in strategies)


def verdict(place: Place, table: Sequence[Row]) -> Verdict:
    """Judge a place by RULE."""
    here = [row for row in table if row.place == place]
    failing = tuple(dict.fromkeys(row.strategy for row in here if row.good_share < FAULTLESS_SHARE))
    most_clients = max(row.clients for row in here)
    able = [row for row in here if row.clients == most_clients and row.strategy not in failing]
    if not able:
        return Verdict(place, None, (), failing)
    mark = EQUAL_SHARE * max(row.requests_per_s for row in able)
    equals = sorted(
        (row for row in able if row.requests_per_s >= mark),
        key=lambda row: (row.most_connections, row.latency_ms("p99_ms") or 0),
    )
    return Verdict(place, equals[0], tuple(equals), failing)
