"""The options of `scripts/bench strategies`, also known as `manage.py lab_compare`."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from config.env import CHECKOUT
from config.strategies import STRATEGIES
from lab.comparison import Comparison, compare, of_journal
from lab.matrix import Block, Journal, Plan
from lab.plans import PLANS
from lab.strategies_console import print_comparison
from lab.strategies_report import write_report
from lab.web import MODELS
from lab.workloads import WORKLOADS
from poolhouse.arguments import whole_number
from sandbox.isolation import MARK

JOURNALS = CHECKOUT / "var/lab"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--quick", dest="plan", action="store_const", const="quick", help="two workloads, one round: under two minutes"
    )
    which.add_argument(
        "--full",
        dest="plan",
        action="store_const",
        const="full",
        help="all strategies, servers and workloads: about two hours",
    )
    for name, allowed in (("strategies", STRATEGIES), ("models", MODELS), ("workloads", WORKLOADS)):
        parser.add_argument(f"--{name}", nargs="+", choices=allowed, metavar="NAME", help=f"only: {', '.join(allowed)}")
    parser.add_argument("--clients", nargs="+", type=whole_number(1), metavar="N", help="numbers of concurrent clients")
    parser.add_argument(
        "--rate", type=float, metavar="N", help="send N requests/s, instead of the next after each answer"
    )
    parser.add_argument(
        "--connections", type=whole_number(1), metavar="N", help="the limit for all pools together, or for PgBouncer"
    )
    parser.add_argument(
        "--no-health-checks",
        dest="health_checks",
        action="store_false",
        help="check out connections without validation",
    )
    parser.add_argument("--rounds", type=whole_number(1), metavar="N", help="how often each cell is measured")
    parser.add_argument("--turn-s", type=float, metavar="SECONDS", help="length of each measurement")
    parser.add_argument(
        "--journal", type=Path, metavar="FILE", help="record turns here; if interrupted, continue from it"
    )
    parser.add_argument("--again", action="store_true", help="delete the journal and start again")
    parser.add_argument("--background", action="store_true", help="run without this terminal")
    parser.add_argument(
        "--report", type=Path, metavar="FOLDER", help="write an HTML page, Markdown, charts and the journal there"
    )
    parser.set_defaults(measure=measure, plan="headline")


def measure(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure, or read what --from names; print it, and write the report."""
    if arguments.source:
        journal: Path = arguments.source
        return _reported(of_journal(Journal.finished(journal)), journal, _stem(journal), arguments, console)
    if arguments.background:
        _continue_in_background(console)
    journal = arguments.journal or JOURNALS / f"strategies-{arguments.plan}.jsonl"
    try:
        plan = chosen(arguments)
        # A short comparison is measured again rather than continued.
        if arguments.again or (arguments.plan != "full" and not arguments.journal):
            journal.unlink(missing_ok=True)
        comparison = compare(plan, journal, console)
    except ValueError as problem:
        sys.exit(str(problem))
    stem = "strategies" if arguments.plan == "full" else f"strategies-{arguments.plan}"
    return _reported(comparison, journal, stem, arguments, console)


def _stem(journal: Path) -> str:
    return journal.name.removesuffix(".gz").removesuffix(".jsonl")


def _reported(
    comparison: Comparison, journal: Path, stem: str, arguments: argparse.Namespace, console: Console
) -> dict[str, Any]:
    print_comparison(comparison, console)
    if arguments.report:
        write_report(comparison, CHECKOUT / arguments.report, journal, stem)
    return comparison.as_document()


def chosen(arguments: argparse.Namespace) -> Plan:
    """Return the plan, limited by the options.

    Raises:
        ValueError: --rate is combined with a server for which the load generator cannot keep a rate.
    """
    plan = PLANS[arguments.plan]
    blocks = _blocks_of(plan, arguments.models) if arguments.models else plan.blocks
    if arguments.rate and any(MODELS[model].closes_connections for block in blocks for model in block.models):
        raise ValueError(
            f"--rate {arguments.rate:g} cannot be kept with a server that closes each connection after its answer: "
            f"choose from these with --models: {', '.join(_models_that_hold_a_rate())}."
        )
    return replace(
        plan,
        strategies=tuple(arguments.strategies or plan.strategies),
        blocks=tuple(
            Block(
                block.models, tuple(arguments.workloads or block.workloads), tuple(arguments.clients or block.clients)
            )
            for block in blocks
        ),
        rounds=arguments.rounds or plan.rounds,
        turn_s=arguments.turn_s or plan.turn_s,
        connections=arguments.connections or plan.connections,
        health_checks=arguments.health_checks,
        rate=arguments.rate,
    )


def _blocks_of(plan: Plan, models: Sequence[str]) -> list[Block]:
    """Return the plan's blocks for these models; a model that it lacks is measured like those of its first block."""
    planned = [
        replace(block, models=tuple(model for model in block.models if model in models)) for block in plan.blocks
    ]
    there = [model for block in planned for model in block.models]
    others = replace(plan.blocks[0], models=tuple(model for model in models if model not in there))
    return [block for block in (*planned, others) if block.models]


def _models_that_hold_a_rate() -> list[str]:
    return [name for name, model in MODELS.items() if not model.closes_connections]


def _continue_in_background(console: Console) -> None:
    """Start this command as a process that outlives the terminal, and exit."""
    JOURNALS.mkdir(parents=True, exist_ok=True)
    log = JOURNALS / "strategies.log"
    command = [sys.executable, "-m", "lab", *(word for word in sys.argv[1:] if word != "--background")]
    unmarked = {name: value for name, value in os.environ.items() if name != MARK}  # noqa: TID251 - it outlives us
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env=unmarked, stdout=output, stderr=output, start_new_session=True
        )
    console.print(f"process {process.pid} continues and writes to {log}. If it is interrupted, start it again.")
    sys.exit(0)
