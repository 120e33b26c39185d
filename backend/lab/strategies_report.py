"""The strategies' experiment: which cells, and how the result is told."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from django.template import Context, Engine
from django.utils.safestring import mark_safe
from rich.console import Console

from config.env import CHECKOUT
from config.strategies import STRATEGIES
from lab import pictures, strategies, summary
from lab.circumstances import circumstances
from lab.matrix import Block, Journal, Plan
from lab.summary import Row, Verdict
from lab.web import MODELS
from lab.workloads import WORKLOADS
from poolhouse.display.console import table
from sandbox import debian
from sandbox.isolation import isolated_servers

QUESTION = "How many requests does a web answer, how fast and how well, by how it keeps its connections?"
CODE = re.compile("`([^`]+)`")
HEADLINE = summary.Place("gthread", "one")
"""where strategies are compared in one number"""
EXHAUSTION = summary.Place("gevent", "think")
"""where nothing but the pools bounds what is asked of the database at once"""
ROOM = 35
"""connections that the server has for the application: max_connections less the reserved"""

ALL = tuple(STRATEGIES)
_HEADLINE_BLOCK = Block(("gthread",), ("one",), (16,))
PLANS = {
    "headline": Plan(ALL, (_HEADLINE_BLOCK,), rounds=7, turn_s=1.0),
    "quick": Plan(ALL, (_HEADLINE_BLOCK, Block(("gevent",), ("think",), (128,))), rounds=1, turn_s=0.6),
    "full": Plan(ALL, (Block(tuple(MODELS), tuple(WORKLOADS), (8, 32, 128)),), rounds=3, turn_s=1.2),
}


@dataclass(frozen=True)
class Comparison:
    """A comparison that is done."""

    circumstances: dict[str, Any]
    rows: list[Row]

    @property
    def verdicts(self) -> list[Verdict]:
        """Judge every place."""
        return [summary.verdict(place, self.rows) for place in summary.places(self.rows)]

    @property
    def headline(self) -> list[Row]:
        """The rows of the headline, under the fewest clients that it was measured with; none if it was left out."""
        there = [row for row in self.rows if row.place == HEADLINE]
        fewest = min((row.clients for row in there), default=0)
        return [row for row in there if row.clients == fewest]

    def as_document(self) -> dict[str, Any]:
        """Give it as JSON data."""
        rates = {row.strategy: row.requests_per_s for row in self.headline}
        return {
            "question": QUESTION,
            **self.circumstances,
            "requests_per_s": {strategy: round(rate) for strategy, rate in rates.items()},
            "ratio_to_none": _ratios(rates, "none"),
            "ratio_to_native": _ratios(rates, "native"),
            "rows": [_row_document(row) for row in self.rows],
            "rule": summary.RULE,
            "verdicts": [
                {"model": verdict.place.model, "workload": verdict.place.workload, "verdict": verdict.sentence}
                for verdict in self.verdicts
            ],
        }


def _ratios(rates: dict[str, float], to: str) -> dict[str, float]:
    return {name: round(rate / rates[to], 3) for name, rate in rates.items()} if rates.get(to) else {}


def _row_document(row: Row) -> dict[str, Any]:
    return {
        "strategy": row.strategy,
        "model": row.place.model,
        "workload": row.place.workload,
        "clients": row.clients,
        "requests_per_s": row.requests_per_s,
        "rounds": row.rates,
        **{name: row.latency_ms(name) for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")},
        "p99_ms_of_fast": row.latency_ms("p99_ms", "latency_of_fast"),
        "errors": dict(row.errors),
        "answers": row.answers,
        "wait_ms": row.wait_ms,
        "connections_opened_per_s": row.opened_per_s,
        "server_connections_max": row.most_connections,
        "processor_us_a_request": {who: row.processor_us(who) for who in ("web", "timescale", "pgbouncer")},
        "memory_mib": {who: row.memory_mib(who) for who in ("web", "timescale", "pgbouncer")},
    }


def compare(plan: Plan, journal_file: Path, console: Console) -> Comparison:
    """Measure what the journal lacks of a plan; give all that it has.

    Raises:
        ValueError: the journal was begun on another machine, with other versions or other lengths.
    """
    debian.ensure_tools()
    debian.make(debian.cached_load_generator())
    with isolated_servers() as place:
        # The command may be another: an interrupted comparison goes on with what is left of it.
        found = circumstances()
        settled = {key: value for key, value in found.items() if key != "command"}
        journal = Journal.opened(journal_file, {**settled, **plan.conditions})
        strategies.measure(plan, journal, place, console)
    return Comparison({**found, **journal.circumstances}, summary.rows(journal.turns))


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print a table for each place, and the verdicts."""
    for verdict in comparison.verdicts:
        place = verdict.place
        console.print(f"\n[bold]{WORKLOADS[place.workload].label}[/], {MODELS[place.model].label}")
        made = table(
            "strategy",
            "clients#",
            "requests/s#",
            "p50 ms#",
            "p99 ms#",
            "errors#",
            "connections#",
            "opened/s#",
            "wait ms#",
        )
        for row in sorted(
            (row for row in comparison.rows if row.place == place), key=lambda row: (row.clients, -row.requests_per_s)
        ):
            p50, p99, wait = row.latency_ms("p50_ms"), row.latency_ms("p99_ms"), row.wait_ms
            made.add_row(
                row.strategy,
                str(row.clients),
                f"{row.requests_per_s:,.0f}",
                *(("–" if ms is None else f"{ms:,.1f}") for ms in (p50, p99)),
                f"{1 - row.good_share:.1%}" if row.errors else "0",
                str(row.most_connections),
                f"{row.opened_per_s:,.0f}",
                "–" if wait is None else f"{wait:.1f}",
            )
        console.print(made)
        console.print(verdict.sentence)


def write_report(comparison: Comparison, folder: Path, journal: Path) -> None:
    """Write strategies.html, which needs nothing else, and strategies.md with its pictures beside it.

    Args:
        comparison: what to tell.
        folder: where; it is made.
        journal: the raw data; it is copied beside the report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / "strategies.jsonl"
    if not (raw.exists() and raw.samefile(journal)):
        shutil.copyfile(journal, raw)
    told = _told(comparison, raw.name)
    for name, svg in told["pictures"].items():
        (folder / f"strategies-{name}.svg").write_text(svg)
    engine = Engine(dirs=[str(CHECKOUT / "backend/lab/templates/lab")], autoescape=True)
    safe = {**told, "pictures": {name: mark_safe(svg) for name, svg in told["pictures"].items()}}  # noqa: S308 - our own SVG
    (folder / "strategies.html").write_text(engine.get_template("strategies.html").render(Context(safe)))
    plain = Context(told, autoescape=False)
    (folder / "strategies.md").write_text(engine.get_template("strategies.md").render(plain))


def _told(comparison: Comparison, journal: str) -> dict[str, Any]:
    rows = comparison.rows
    drawn: dict[str, str] = {}
    sections = []
    if comparison.headline:
        drawn["headline"] = pictures.headline(HEADLINE, rows, comparison.headline[0].clients)
    for verdict in comparison.verdicts:
        place = verdict.place
        name = f"{place.model}-{place.workload}"
        drawn |= {f"{name}-{which}": svg for which, svg in pictures.of_place(place, rows).items()}
        sections.append(
            {
                "name": name,
                "title": f"{WORKLOADS[place.workload].label}, {MODELS[place.model].label}",
                "verdict": verdict.sentence,
                "verdict_html": mark_safe(CODE.sub(r"<code>\1</code>", escape(verdict.sentence))),  # noqa: S308 - escaped
                "rows": _section_rows([row for row in rows if row.place == place]),
                "throughput": mark_safe(drawn[f"{name}-throughput"]),  # noqa: S308 - our own SVG
                "p99": mark_safe(drawn[f"{name}-p99"]),  # noqa: S308 - our own SVG
            }
        )
    if any(row.place == EXHAUSTION for row in rows):
        drawn["connections"] = pictures.connections(EXHAUSTION, rows, ROOM)
        drawn["exhaustion"] = pictures.exhaustion(EXHAUSTION, rows)
    return {
        "question": QUESTION,
        "rule": summary.RULE,
        "circumstances": comparison.circumstances,
        "versions": ", ".join(f"{name} {version}" for name, version in comparison.circumstances["versions"].items()),
        "constraints": {
            "max_connections": strategies.MAX_CONNECTIONS,
            "room": ROOM,
            "pool_timeout_ms": f"{strategies.POOL_TIMEOUT_S * 1000:,.0f}",
        },
        "rounds": len(rows[0].turns),
        "journal": journal,
        "sections": sections,
        "pictures": drawn,
        "strategies": STRATEGIES,
    }


def _section_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {
            "strategy": row.strategy,
            "clients": row.clients,
            "requests_per_s": f"{row.requests_per_s:,.0f}",
            "spread": f"{min(row.rates):,.0f}–{max(row.rates):,.0f}",
            **{which: _ms(row.latency_ms(f"{which}_ms")) for which in ("p50", "p95", "p99", "max")},
            "fast_p99": _ms(row.latency_ms("p99_ms", "latency_of_fast")),
            "errors": f"{1 - row.good_share:.1%}" if row.errors else "0",
            "kinds": ", ".join(sorted(row.errors)),
            "wait": _ms(row.wait_ms),
            "opened": f"{row.opened_per_s:,.0f}",
            "connections": row.most_connections,
            "web_us": f"{row.processor_us('web'):,.0f}",
            "server_us": f"{row.processor_us('timescale'):,.0f}",
            "pooler_us": f"{row.processor_us('pgbouncer'):,.0f}",
            "web_mib": f"{row.memory_mib('web'):,.0f}",
            "server_mib": f"{row.memory_mib('timescale'):,.0f}",
        }
        for row in sorted(rows, key=lambda row: (row.clients, -row.requests_per_s))
    ]


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"
