"""What does monitoring cost? Counting in each process, merging their reports, and the commands.

Each figure has a bound, which was chosen before the measurement: above it, monitoring would be noticeable.
"""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from celery import Celery
from rich.console import Console

from config.env import CHECKOUT, Queue, read
from lab.circumstances import circumstances
from lab.progress import Progress
from poolhouse import tasks
from poolhouse.display.table import Table
from poolhouse.measures.histogram import Histogram
from poolhouse.measures.meter import COUNTERS
from poolhouse.measures.statement_meter import StatementMeter
from poolhouse.overview.status import take_status
from poolhouse.process.pools import PoolState
from poolhouse.reports.report import ProcessReport
from poolhouse.reports.store import ReportStore
from sandbox.isolation import isolated_servers

PROCESSES = 1000
NOTES = 10_000
"""repetitions in a round, of which it takes the mean"""
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("db_pool_status",),
    ("db_pool_status", "--json"),
    ("monitor_connection_pool",),
    ("monitor_connection_pool", "--json"),
)


app = Celery("bench", set_as_current=False, broker="memory://")


@app.task(name="do_nothing")
def do_nothing() -> None:
    """Do nothing; the task is only traced."""


@dataclass(frozen=True)
class Figure:
    """What is measured, and its bound."""

    what: str
    unit: str
    bound: float
    measure: Callable[[], float]
    """returns the result of one round, in the unit"""


def figures(store: ReportStore) -> list[Figure]:
    """Return the figures to measure; the store holds the reports of a large fleet."""
    commands = [Figure(" ".join(command), "s", 1.0, partial(answer_s, command)) for command in COMMANDS]
    return [
        Figure("a statement is counted", "µs", 2, count_us),
        Figure("a task is traced", "µs", 50, follow_us),
        Figure(f"the reports of {PROCESSES:,} processes are read and merged", "ms", 100, partial(merge_ms, store)),
        Figure("a status is taken", "ms", 300, status_ms),
        *commands,
    ]


def count_us() -> float:
    """Return the microseconds that counting a statement takes."""
    meter = StatementMeter()
    begun_at = time.perf_counter()
    for _ in range(NOTES):
        meter.note("default", 0.001234, failed=False)
    return (time.perf_counter() - begun_at) / NOTES * 1e6


def follow_us() -> float:
    """Return the microseconds that Celery's signals take for one task."""
    begun_at = time.perf_counter()
    for _ in range(NOTES):
        tasks._begin(task_id="6f", task=do_nothing)
        tasks._end(task_id="6f")
    return (time.perf_counter() - begun_at) / NOTES * 1e6


def publish_fleet(store: ReportStore) -> None:
    """Publish the reports of a large fleet, each with three histograms of 500 durations."""
    chance = random.Random(1)  # noqa: S311 - durations, the same each time
    seen = [_durations(chance) for _ in range(20)]
    for number in range(PROCESSES):
        wait, hold, connect = chance.choices(seen, k=3)
        counts = dict.fromkeys(COUNTERS, 7)
        state = PoolState("default", "engine", "queuepool", 5, 10, 3, 2, 0, 1, counts, wait, hold, connect)
        store.publish(ProcessReport(f"web@box:{number}", "web", "box", number, 1.0, 2.0, (state,)))


def _durations(chance: random.Random) -> Histogram:
    made = Histogram()
    for _ in range(500):
        made.record(chance.lognormvariate(-6, 1.5))
    return made


def merge_ms(store: ReportStore) -> float:
    """Return the milliseconds that reading and merging all reports takes."""
    begun_at = time.perf_counter()
    pools = [pool for report in store.read_all().live for pool in report.pools]
    Histogram.merged(pool.wait for pool in pools if pool.wait)
    Histogram.merged(pool.hold for pool in pools if pool.hold)
    return (time.perf_counter() - begun_at) * 1000


def status_ms() -> float:
    """Return the milliseconds that a status takes, with queries to the server and all reports."""
    begun_at = time.perf_counter()
    take_status()
    return (time.perf_counter() - begun_at) * 1000


def answer_s(command: tuple[str, ...]) -> float:
    """Return the seconds from the start of a command to its end."""
    begun_at = time.perf_counter()
    subprocess.run([sys.executable, str(CHECKOUT / "backend/manage.py"), *command], check=True, capture_output=True)
    return time.perf_counter() - begun_at


def compare(rounds: int, console: Console) -> dict[str, Any]:
    """Measure each figure in a number of rounds; return minimum, median and bound."""
    with Progress(console) as progress, isolated_servers():
        progress("publishing the reports of a large fleet")
        store = ReportStore(read(Queue).url, prefix="watching", ttl_s=3600, timeout_s=60)
        publish_fleet(store)
        measured = {}
        for figure in progress.each(figures(store), "figure"):
            figure.measure()  # warm
            taken = [figure.measure() for _ in range(rounds)]
            measured[figure.what] = {
                "unit": figure.unit,
                "bound": figure.bound,
                "least": round(min(taken), 3),
                "median": round(median(taken), 3),
            }
        store.close()
        return {"question": "what monitoring costs", **circumstances(), "rounds": rounds, "figures": measured}


def print_comparison(result: dict[str, Any], console: Console) -> None:
    """Print the result of `compare` as a table."""
    made = Table("what", "min#", "median#", "bound#", "")
    for what, one in result["figures"].items():
        verdict = "within" if one["least"] <= one["bound"] else "OVER"
        made.add_row(what, f"{one['least']:,}", f"{one['median']:,}", f"{one['bound']:,} {one['unit']}", verdict)
    console.print(made)
    console.print("the minimum of all rounds is compared with the bound: other load on the machine can only add time")
