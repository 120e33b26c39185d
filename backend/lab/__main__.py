"""`python -m lab`: what scripts/bench and the lab's Django commands open."""

import argparse
import json
import sys
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
"""of what is written to a file or a pipe"""


def ingest(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Compare the ingest path with psql, the server's limit and bulk_create."""
    result = ingest_report.compare(arguments.rows, arguments.rounds, console)
    ingest_report.print_comparison(result, console)
    if arguments.chart:
        (CHECKOUT / arguments.chart).write_text(ingest_report.draw(result))
    return result


def ingest_parts(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure rows/s in each of ten equal parts of one large file."""
    result = ingest_report.measure_parts(arguments.rows, 10, console)
    ingest_report.print_parts(result, console)
    return result


def long_history(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Load a row a day of many years beside a client that must not notice."""
    result = history.measure(arguments.stations, arguments.years, console)
    history.print_result(result, console)
    return result


def engine(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Compare requests/s on the engine with those on the pools beside it."""
    result = engine_report.compare(arguments.rounds, console)
    engine_report.print_comparison(result, console)
    if arguments.chart:
        (CHECKOUT / arguments.chart).write_text(engine_report.draw(result))
    return result


def connect(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure what a connection costs, by how it is opened."""
    result = connect_report.compare(arguments.rounds, console)
    connect_report.print_comparison(result, console)
    if arguments.chart:
        (CHECKOUT / arguments.chart).write_text(connect_report.draw(result))
    return result


def watch(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure what watching costs, and hold it against its bounds."""
    result = watching.compare(arguments.rounds, console)
    watching.print_comparison(result, console)
    return result


def main() -> int:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    experiments = parser.add_subparsers(required=True)
    compared = experiments.add_parser("ingest", help="the ingest path beside psql, the limit and bulk_create")
    compared.add_argument("--rows", type=int, default=5_000_000)
    compared.set_defaults(measure=ingest)
    grown = experiments.add_parser("ingest-parts", help="rows/s in each of ten equal parts of one large file")
    grown.add_argument("--rows", type=int, default=50_000_000)
    grown.set_defaults(measure=ingest_parts)
    histories = experiments.add_parser("history", help="a row a day of many years, beside a client that asks SELECT 1")
    histories.add_argument("--stations", type=int, default=20)
    histories.add_argument("--years", type=int, default=150)
    histories.set_defaults(measure=long_history)
    engines = experiments.add_parser("engine", help="requests/s on the engine beside other pools")
    engines.set_defaults(measure=engine)
    connects = experiments.add_parser("connect", help="what a connection costs, by how it is opened")
    connects.set_defaults(measure=connect)
    watches = experiments.add_parser("watching", help="what counting, reports and the status cost, beside bounds")
    watches.set_defaults(measure=watch)
    strategies = experiments.add_parser("strategies", help="every way to keep connections (manage.py lab_compare)")
    strategies_command.add_arguments(strategies)
    chaos = experiments.add_parser("chaos", help="whether anything acknowledged is lost or doubled, whatever fails")
    chaos_command.add_arguments(chaos)
    chaos.set_defaults(measure=chaos_command.chaos)
    compared.add_argument("--rounds", type=int, default=5)
    engines.add_argument("--rounds", type=int, default=25, help="of a second for each way")
    connects.add_argument("--rounds", type=int, default=15, help="of ten connections for each way and driver")
    watches.add_argument("--rounds", type=int, default=10)
    for each in (compared, engines, connects):
        each.add_argument("--chart", type=Path, metavar="FILE", help="draw an SVG, as those in docs/lab")
    for each in (compared, grown, histories, engines, connects, watches, strategies):
        each.add_argument("--json", type=Path, metavar="FILE", help="write machine, versions and every round")
    arguments = parser.parse_args()
    try:
        result = arguments.measure(arguments, Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH))
    finally:
        stop_left_behind()
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if result.get("failed") else 0


if __name__ == "__main__":
    sys.exit(main())
