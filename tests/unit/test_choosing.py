"""The guide's evidence is what was measured: every figure of docs/evidence.md, against the data beside it."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from config.env import CHECKOUT
from config.strategies import STRATEGIES
from lab.matrix import Journal
from lab.summary import rows


def page(name: str) -> str:
    """Return the text of a page, with each list item on one line."""
    return re.sub(r"\n +(?=\S)", " ", (CHECKOUT / "docs" / name).read_text())


GUIDE, EVIDENCE = page("choosing.md"), page("evidence.md")
PAGES = GUIDE + EVIDENCE
LAB = CHECKOUT / "docs/lab"
LINE = re.compile(r"^- \*\*(E\d+)\*\* `([\w-]+)` on `([\w-]+)`, (\d+) clients, ([^:]+): (.*?)\.$", re.MULTILINE)
FIGURE = re.compile(r"`([a-z0-9_+-]+)` ([\d,.]+)")
BY_CONNECTIONS = re.compile(r"^- `(\w+)` by connections[^:]*: (.*?)\.$", re.MULTILINE)
WITH_SO_MANY = re.compile(r"([\d,]+) with (\d+)")

Cell = tuple[str, str, str, int]
"""strategy, model, workload, clients"""


@cache
def rows_of(name: str) -> dict[Cell, dict[str, Any]]:
    """The rows of a file: computed from a journal, or as an experiment wrote them with --json."""
    if name.endswith(".jsonl.gz"):
        found = [row.as_document() for row in rows(Journal.finished(LAB / name).turns)]
    else:
        found = json.loads((LAB / name).read_text())["rows"]
    return {(row["strategy"], row["model"], row["workload"], row["clients"]): row for row in found}


MATRIX, _, OWN_RUNS = EVIDENCE.partition("\n## Process models\n")


def errors_percent(row: dict[str, Any]) -> float:
    return 100 * sum(row["errors"].values()) / row["answers"] if row["answers"] else 0.0


MEASURES = {
    "requests/s": lambda row: row["requests_per_s"],
    "p50 in ms": lambda row: row["p50_ms"],
    "p99 in ms": lambda row: row["p99_ms"],
    "p99 of the fast ones in ms": lambda row: row["p99_ms_of_fast"],
    "connections on the server": lambda row: row["server_connections_max"],
    "connections opened per second": lambda row: row["connections_opened_per_s"],
    "µs of the server's processors a request": lambda row: row["processor_us_a_request"]["timescale"],
    "errors in %": errors_percent,
}


def figures() -> Iterator[tuple[str, str, str, float]]:
    """Give each figure: its line, whose it is, what is told, and what was measured."""
    for text, data in ((MATRIX, "strategies.jsonl.gz"), (OWN_RUNS, "strategies-models.json")):
        measured_rows = rows_of(data)
        for name, workload, model, clients, measure, told in LINE.findall(text):
            for strategy, value in FIGURE.findall(told):
                measured = MEASURES[measure](measured_rows[strategy, model, workload, int(clients)])
                yield name, strategy, value, measured


def test_there_is_evidence() -> None:
    assert OWN_RUNS
    assert len(LINE.findall(EVIDENCE)) == len(re.findall(r"^- \*\*E\d+\*\*", EVIDENCE, re.MULTILINE)) >= 8


@pytest.mark.parametrize(("name", "strategy", "value", "measured"), list(figures()))
def test_a_figure_is_what_was_measured(name: str, strategy: str, value: str, measured: float) -> None:
    decimals = len(value.partition(".")[2])
    assert f"{measured:,.{decimals}f}" == value, (name, strategy)


def test_a_figure_by_connections_is_what_was_measured() -> None:
    told = BY_CONNECTIONS.findall(EVIDENCE)
    assert {workload for workload, _ in told} == {"ten", "think"}
    for workload, line in told:
        figures_told = WITH_SO_MANY.findall(line)
        assert len(figures_told) >= 4
        for rate, connections in figures_told:
            row = rows_of(f"strategies-{connections}-connections.json")["queuepool", "gthread", workload, 32]
            assert f"{row['requests_per_s']:,.0f}" == rate, (workload, connections)


def test_tests_that_are_named_are_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGES))
    written = {
        name
        for file in (CHECKOUT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    assert named
    assert named <= written


def test_evidence_that_is_named_is_there() -> None:
    told = {name for name, *_ in LINE.findall(EVIDENCE)}
    assert set(re.findall(r"\bE\d+\b", PAGES)) == told
    assert set(re.findall(r"\bE\d+\b", GUIDE))


def test_strategies_that_are_named_are_there() -> None:
    named = set(re.findall(r"`((?:pgbouncer-)[a-z+-]+)`", PAGES))
    assert named <= set(STRATEGIES)
