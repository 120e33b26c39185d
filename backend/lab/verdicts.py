"""Which strategy to choose in a setting, by a published rule."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from config.strategies import STRATEGIES, Feature
from lab import workloads
from lab.summary import FAULTLESS_SHARE, Row, Setting, within

EQUAL_SHARE = 0.9

RULE = (
    f"A strategy qualifies for a number of clients if at least {FAULTLESS_SHARE:.1%} of its requests succeed and its "
    "load is steady, with this number of clients and with each smaller one. The verdict is for the largest number of "
    "clients for which any strategy qualifies. A strategy counts as fast as the fastest if its median reaches "
    f"{EQUAL_SHARE:.0%} of the fastest median, or if its best round reaches the worst round of the fastest: on this "
    "machine the difference is noise. Among these, the strategy with the fewest connections on the server wins; "
    "if several have the same number, the one with the lowest p99."
)


@dataclass(frozen=True)
class Verdict:
    """Which strategy to choose in a setting."""

    setting: Setting
    winner: Row | None
    """None if no strategy qualifies for any number of clients"""
    equals: tuple[Row, ...]
    """the strategies that are as fast as the fastest, with the winner"""
    failing: tuple[str, ...]
    """strategies with errors"""
    behind: tuple[str, ...]
    """strategies whose load was not steady"""

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self.winner is None:
            return "No strategy answers without errors under a steady load."
        sentences = [
            f"`{self.winner.strategy}`: {self.winner.requests_per_s:,.0f} requests/s for {self.winner.clients} clients "
            f"with {self.winner.most_connections} connections on the server{self._reservation}."
        ]
        for what, strategies in (
            ("As fast, with more connections or a longer p99", self._others),
            ("With errors", self.failing),
            ("Not steady", self.behind),
        ):
            if strategies:
                sentences.append(f"{what}: {', '.join(f'`{strategy}`' for strategy in strategies)}.")
        return " ".join(sentences)

    @property
    def _others(self) -> list[str]:
        return [row.strategy for row in self.equals if row is not self.winner]

    @property
    def _reservation(self) -> str:
        """What the winner does not support, in words."""
        if self.winner is None:
            return ""
        broken, text = STRATEGIES[self.winner.strategy].breaks, ""
        if Feature.ATOMIC in broken:
            text += f"; {Feature.ATOMIC.value} is an error with it"
        if Feature.CURSORS in broken and self.setting.workload == workloads.stream.__name__:
            text += f"; it has no {Feature.CURSORS.value}, and holds all rows in the web's memory instead"
        return text


def verdict(setting: Setting, table: Sequence[Row]) -> Verdict:
    """Return the verdict on a setting by RULE."""
    here = within(setting, table)
    judged = [_judged(setting, here, clients) for clients in sorted({row.clients for row in here}, reverse=True)]
    return next((one for one in judged if one.winner), judged[-1])


def _judged(setting: Setting, here: Sequence[Row], clients: int) -> Verdict:
    so_far = [row for row in here if row.clients <= clients]
    failing = _strategies(row for row in so_far if row.has_errors)
    behind = _strategies(row for row in so_far if not row.is_steady)
    able = [row for row in so_far if row.clients == clients and row.strategy not in failing + behind]
    equals = sorted(_as_fast_as_the_fastest(able), key=_cost)
    return Verdict(setting, equals[0] if equals else None, tuple(equals), failing, behind)


def _strategies(rows: Iterable[Row]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.strategy for row in rows))


def _as_fast_as_the_fastest(rows: Sequence[Row]) -> list[Row]:
    if not rows:
        return []
    fastest = max(rows, key=lambda row: row.requests_per_s)
    mark, worst = EQUAL_SHARE * fastest.requests_per_s, min(fastest.rates)
    return [row for row in rows if row.requests_per_s >= mark or max(row.rates) >= worst]


def _cost(row: Row) -> tuple[int, float]:
    p99_ms = row.latency_ms("p99_ms")
    return row.most_connections, math.inf if p99_ms is None else p99_ms
