"""The engine's experiment: measurements in turn, and their report."""

import random
from statistics import median
from typing import Any

from rich.console import Console

from lab import chart, engine, long_statements, middleware
from lab.circumstances import circumstances
from lab.progress import Progress
from poolhouse.display.table import Table
from sandbox import debian
from sandbox.isolation import isolated_servers

# The memory layout of a process makes it faster or slower for its whole life, so processes are started several times.
STARTS = 5


def compare(rounds: int, console: Console) -> dict[str, Any]:
    """Measure each pool in turn, in another order each round; return all rounds, medians and ratios of requests/s."""
    chance = random.Random(1)  # noqa: S311 - an order, the same each time
    debian.ensure_tools()
    debian.make(debian.cached_load_generator())
    with Progress(console) as progress, isolated_servers() as place:
        engine.make_room(place)
        turns: dict[str, list[engine.Turn]] = {way: [] for way in engine.WAYS}
        for start in range(1, STARTS + 1):
            progress(f"start {start} of {STARTS}: {len(engine.WAYS)} web servers")
            with engine.webs(place.data) as webs:
                for way, web in webs.items():
                    engine.take_turn(way, web)  # warm
                for _ in progress.each(range(-(-rounds // STARTS)), f"start {start} of {STARTS}: round"):
                    for way in chance.sample(list(turns), len(turns)):
                        turns[way].append(engine.take_turn(way, webs[way]))
        rates = {way: median(turn.requests_per_s for turn in taken) for way, taken in turns.items()}
        return {
            "question": "requests per second with one query per request, by connection pool",
            **circumstances(),
            "web": {"processes": engine.PROCESSES, "threads": engine.THREADS, "clients": engine.CLIENTS},
            "requests_per_s": {way: [round(turn.requests_per_s) for turn in taken] for way, taken in turns.items()},
            "median_requests_per_s": {way: round(rate) for way, rate in rates.items()},
            "median_processor_us": {
                way: round(median(turn.processor_us for turn in taken), 1) for way, taken in turns.items()
            },
            "ratio_to_plain_without_ping": round(rates["poolhouse"] / rates["plain"], 3),
            "ratio_to_plain_with_ping": round(rates["poolhouse"] / rates["plain_ping"], 3),
            "ratio_to_native": round(rates["poolhouse"] / rates["native"], 3),
            "ratio_of_leak_detection_on_to_off": round(rates["leaks"] / rates["poolhouse"], 3),
            "middleware_us": round(middleware.cost_us(), 1),
            "long_statements": long_statements.compare(),
        }


def print_comparison(result: dict[str, Any], console: Console) -> None:
    """Print the result of `compare` as tables."""
    made = Table("connection pool", "requests/s#", "min#", "max#", "to ours#", "µs#")
    ours = result["median_requests_per_s"]["poolhouse"]
    for way, label in engine.LABELS.items():
        processor_us = str(result["median_processor_us"][way])
        rates, middle = result["requests_per_s"][way], result["median_requests_per_s"][way]
        made.add_row(label, f"{middle:,}", f"{min(rates):,}", f"{max(rates):,}", f"{middle / ours:.2f}", processor_us)
    console.print(made)
    console.print("requests/s: medians; µs: processor time of the web server's processes for each request")
    console.print(f"the middleware adds {result['middleware_us']} µs to a request with one query")
    if "long_statements" in result:  # results published before it was measured lack it
        console.print(_long_statements(result["long_statements"]))


def _long_statements(measured: dict[str, Any]) -> Table:
    long = Table("INSERT of", "Django's own, ms#", "poolhouse's, ms#", "ratio#")
    for statement, took in measured.items():
        long.add_row(statement, f"{took['standard_ms']:.2f}", f"{took['poolhouse_ms']:.2f}", f"{took['ratio']:.3f}")
    return long


def draw(result: dict[str, Any]) -> str:
    """Return a chart of the result of `compare` as SVG."""
    rows = [
        (label, [float(rate) for rate in result["requests_per_s"][way]], way == "poolhouse")
        for way, label in engine.LABELS.items()
    ]
    subtitle = (
        f"one query per request, gunicorn {engine.PROCESSES} × {engine.THREADS}, {engine.CLIENTS} clients; "
        f"median of {len(rows[0][1])} rounds, line: minimum to maximum; {result['machine']['processors']} processors"
    )
    return chart.bars("Requests per second", subtitle, rows, "requests/s")
