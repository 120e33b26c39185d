"""`python -m lab`: the experiments behind scripts/bench and the lab's Django commands."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandbox.isolation import isolate, stop_left_behind
from sandbox.processes import end_in_good_order

end_in_good_order()
isolate("bench")

from config.start import start  # noqa: E402 - it reads the environment

start("bench")

import django  # noqa: E402

django.setup()

from rich.console import Console  # noqa: E402

from config.env import CHECKOUT  # noqa: E402
from lab import connect_report, engine_report, history, ingest_report, strategies_command, watching  # noqa: E402
from lab.chaos import command as chaos_command  # noqa: E402

WIDTH = 120
"""columns of output to a file or a pipe"""


def _measured(arguments: argparse.Namespace, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the result that --from names, or measure."""
    if arguments.source:
        result: dict[str, Any] = json.loads(arguments.source.read_text())
        return result
    return measure()


def _draw(arguments: argparse.Namespace, draw: Callable[[dict[str, Any]], str], result: dict[str, Any]) -> None:
    if arguments.chart:
        (CHECKOUT / arguments.chart).write_text(draw(result))


def ingest(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Compare the ingest path with psql, the server's limit and bulk_create."""
    result = _measured(arguments, lambda: ingest_report.compare(arguments.rows, arguments.rounds, console))
    ingest_report.print_comparison(result, console)
    _draw(arguments, ingest_report.draw, result)
    return result


def ingest_parts(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure rows/s in each of ten equal parts of one large file."""
    result = ingest_report.measure_parts(arguments.rows, 10, console)
    ingest_report.print_parts(result, console)
    return result


def long_history(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Load one row per day over many years while a client checks that the server still answers."""
    result = history.measure(arguments.stations, arguments.years, console)
    history.print_result(result, console)
    return result


def engine(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Compare requests/s on this project's engine and on other pools."""
    result = _measured(arguments, lambda: engine_report.compare(arguments.rounds, console))
    engine_report.print_comparison(result, console)
    _draw(arguments, engine_report.draw, result)
    return result


def connect(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure what a connection costs, by the way in which it is opened."""
    result = _measured(arguments, lambda: connect_report.compare(arguments.rounds, console))
    connect_report.print_comparison(result, console)
    _draw(arguments, connect_report.draw, result)
    return result


def watch(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure what monitoring costs, and compare it with its bounds."""
    result = watching.compare(arguments.rounds, console)
    watching.print_comparison(result, console)
    return result


def _existing_file(text: str) -> Path:
    if not (path := Path(text)).is_file():
        raise argparse.ArgumentTypeError(f"expected a file that an earlier run wrote, got {text!r}")
    return path


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line: a subcommand for each experiment."""
    made = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Run an experiment on servers of its own, started for it and stopped after it.",
    )
    experiments = made.add_subparsers(required=True, metavar="EXPERIMENT")
    compared = experiments.add_parser("ingest", help="rows/s of the ingest path, psql, the server's limit, bulk_create")
    compared.add_argument("--rows", type=int, default=5_000_000)
    compared.set_defaults(measure=ingest)
    grown = experiments.add_parser("ingest-parts", help="rows/s in each of ten equal parts of one large file")
    grown.add_argument("--rows", type=int, default=50_000_000)
    grown.set_defaults(measure=ingest_parts)
    histories = experiments.add_parser(
        "history", help="load one row per day over many years; does SELECT 1 still work?"
    )
    histories.add_argument("--stations", type=int, default=20)
    histories.add_argument("--years", type=int, default=150)
    histories.set_defaults(measure=long_history)
    engines = experiments.add_parser("engine", help="requests/s on this project's engine and on other pools")
    engines.set_defaults(measure=engine)
    connects = experiments.add_parser("connect", help="what a connection costs, by the way in which it is opened")
    connects.set_defaults(measure=connect)
    watches = experiments.add_parser("watching", help="what counting, reports and the status cost; fails above a bound")
    watches.set_defaults(measure=watch)
    strategies = experiments.add_parser("strategies", help="compare the connection strategies (manage.py lab_compare)")
    strategies_command.add_arguments(strategies)
    chaos = experiments.add_parser("chaos", help="is acknowledged data lost or loaded twice while services fail?")
    chaos_command.add_arguments(chaos)
    chaos.set_defaults(measure=chaos_command.chaos)
    compared.add_argument("--rounds", type=int, default=5)
    engines.add_argument("--rounds", type=int, default=25, help="of 0.8 s for each pool")
    connects.add_argument("--rounds", type=int, default=15, help="of ten connections for each way and driver")
    watches.add_argument("--rounds", type=int, default=10)
    for each in (compared, engines, connects):
        each.add_argument("--chart", type=Path, metavar="FILE", help="draw an SVG, like those in docs/lab")
    for each in (compared, grown, histories, engines, connects, watches, strategies):
        each.add_argument("--json", type=Path, metavar="FILE", help="write the result with the machine and versions")
    for each in (compared, engines, connects, strategies):
        each.add_argument(
            "--from",
            dest="source",
            type=_existing_file,
            metavar="FILE",
            help="measure nothing: print and draw an earlier run, from "
            + ("its journal, which may be compressed" if each is strategies else "the file that its --json wrote"),
        )
    return made


def main() -> int:
    """Measure, print, and write what was asked for."""
    arguments = parser().parse_args()
    try:
        result = arguments.measure(arguments, Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH))
    finally:
        stop_left_behind()
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if result.get("failed") else 0


if __name__ == "__main__":
    sys.exit(main())
