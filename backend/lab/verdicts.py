"""Which strategy to take in a setting, by a rule that is written down."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from config.strategies import STRATEGIES, Feature
from lab import workloads
from lab.summary import FAULTLESS_SHARE, Row, Setting, within

EQUAL_SHARE = 0.9

RULE = (
    f"A strategy qualifies for a number of clients if with so many, and with fewer, at least {FAULTLESS_SHARE:.1%} of "
    "its answers are no errors, and its load was steady. Judged is the greatest number of clients for which any "
    "strategy qualifies. The fastest sets the mark, and all count as equally fast that "
    f"reach {EQUAL_SHARE:.0%} of its median, or whose best round reaches its worst round: this machine cannot tell "
    "them apart. Of the equally fast, the one with the fewest connections on the server wins, and of those with the "
    "same number the one with the lowest p99."
)


@dataclass(frozen=True)
class Verdict:
    """Which strategy to take in a setting."""

    setting: Setting
    winner: Row | None
    """None where no strategy qualifies, however few clients there are"""
    equals: tuple[Row, ...]
    """those as fast as the fastest, the winner among them"""
    failing: tuple[str, ...]
    """strategies with errors"""
    behind: tuple[str, ...]
    """strategies whose load did not get steady"""

    @property
    def sentence(self) -> str:
        """Say it."""
        if self.winner is None:
            return "No strategy answers without errors under a steady load."
        said = [
            f"`{self.winner.strategy}`: {self.winner.requests_per_s:,.0f} requests/s for {self.winner.clients} clients "
            f"with {self.winner.most_connections} connections on the server{self._reservation}."
        ]
        for what, strategies in (
            ("As fast, with more connections or a longer p99", self._others),
            ("With errors", self.failing),
            ("Not steady", self.behind),
        ):
            if strategies:
                said.append(f"{what}: {', '.join(f'`{strategy}`' for strategy in strategies)}.")
        return " ".join(said)

    @property
    def _others(self) -> list[str]:
        return [row.strategy for row in self.equals if row is not self.winner]

    @property
    def _reservation(self) -> str:
        """Say what the winner does otherwise than it was asked."""
        if self.winner is None:
            return ""
        broken, said = STRATEGIES[self.winner.strategy].breaks, ""
        if Feature.ATOMIC in broken:
            said += f"; {Feature.ATOMIC.value} is an error with it"
        if Feature.CURSORS in broken and self.setting.workload == workloads.stream.__name__:
            said += f"; it has no {Feature.CURSORS.value}, and holds all rows in the web's memory instead"
        return said


def verdict(setting: Setting, table: Sequence[Row]) -> Verdict:
    """Judge a setting by RULE."""
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
