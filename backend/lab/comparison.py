"""A comparison of the strategies: the measured rows and their verdicts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lab import goals, strategies
from lab.circumstances import circumstances
from lab.matrix import Journal, Plan
from lab.plans import HEADLINE, HEADLINE_CLIENTS, QUESTION
from lab.summary import Row, Setting, rows, settings, within
from lab.verdicts import RULE, Verdict, verdict
from lab.web import MODELS
from lab.workloads import WORKLOADS
from sandbox import debian
from sandbox.isolation import isolated_servers


@dataclass(frozen=True)
class Comparison:
    """A finished comparison."""

    circumstances: dict[str, Any]
    rows: list[Row]

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdict on each setting."""
        return [verdict(setting, self.rows) for setting in settings(self.rows)]

    @property
    def headline(self) -> list[Row]:
        """The rows of the headline; empty if it was not measured."""
        return [row for row in within(HEADLINE, self.rows) if row.clients == HEADLINE_CLIENTS]

    @property
    def goals(self) -> list[dict[str, Any]]:
        """The results of the goals of the headline; empty if it was not measured."""
        return goals.judged(self._headline_rates)

    @property
    def _headline_rates(self) -> dict[str, float]:
        return {row.strategy: row.requests_per_s for row in self.headline}

    def title(self, setting: Setting) -> str:
        """Return the title of a setting, with the server's description at the time of the measurement."""
        return f"{WORKLOADS[setting.workload].label}, {self.circumstances['models'][setting.model]}"

    def as_document(self) -> dict[str, Any]:
        """Return it as JSON data."""
        rates = self._headline_rates
        return {
            "question": QUESTION,
            **self.circumstances,
            "requests_per_s": {strategy: round(rate) for strategy, rate in rates.items()},
            "ratio_to_none": _ratios(rates, "none"),
            "ratio_to_native": _ratios(rates, "native"),
            "goals": self.goals,
            "rows": [row.as_document() for row in self.rows],
            "rule": RULE,
            "verdicts": [
                {"model": judged.setting.model, "workload": judged.setting.workload, "verdict": judged.sentence}
                for judged in self.verdicts
            ],
        }


def _ratios(rates: dict[str, float], to: str) -> dict[str, float]:
    return {name: round(rate / rates[to], 3) for name, rate in rates.items()} if rates.get(to) else {}


def compare(plan: Plan, journal_file: Path, console: Console) -> Comparison:
    """Measure the cells of a plan that the journal lacks; return the comparison of all that it has.

    Raises:
        ValueError: the journal was begun in other circumstances, on another machine for example.
    """
    debian.ensure_tools()
    debian.make(debian.cached_load_generator())
    with isolated_servers() as place:
        journal = Journal.opened(journal_file, {**circumstances(), **strategies.conditions(plan)})
        strategies.measure(plan, journal, place, console)
    return of_journal(journal)


def of_journal(journal: Journal) -> Comparison:
    """Return the comparison of the turns in a journal."""
    return Comparison(journal.circumstances, sorted(rows(journal.turns), key=_order))


def _order(row: Row) -> tuple[int, int]:
    return list(MODELS).index(row.setting.model), list(WORKLOADS).index(row.setting.workload)
