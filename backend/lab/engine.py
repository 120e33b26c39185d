"""What does the engine cost a request? One query a request, gunicorn with 2 processes of 8 threads, 16 clients.

poolhouse      this project's engine, with its ping of what has lain idle
leaks          the same, noting the stack that takes each connection
plain          dj_db_conn_pool without a ping
plain, ping    dj_db_conn_pool with its ping at every checkout
native         Django's own pool on psycopg 3, without a health check
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from config.env import CHECKOUT, Database, Monitor, Servers, read
from lab.load import load
from sandbox.isolation import free_ports, superuser_sql
from sandbox.processes import children_of, processor_s
from sandbox.servers import Place, timescale

PROCESSES, THREADS, CLIENTS = 2, 8, 16
START_TIMEOUT_S = 30
TURN_S = 0.8

WAYS = {
    "poolhouse": {"DB_STRATEGY": "poolhouse", "DB_CONN_HEALTH_CHECKS": "true"},
    "leaks": {"DB_STRATEGY": "poolhouse", "DB_CONN_HEALTH_CHECKS": "true", "POOLHOUSE_LEAK_THRESHOLD_S": "30"},
    "plain": {"DB_STRATEGY": "dj_db_conn_pool", "DB_CONN_HEALTH_CHECKS": "false"},
    "plain_ping": {"DB_STRATEGY": "dj_db_conn_pool", "DB_CONN_HEALTH_CHECKS": "true"},
    "native": {"DB_STRATEGY": "native", "DB_CONN_HEALTH_CHECKS": "false"},
}
LABELS = {
    "poolhouse": "poolhouse's engine",
    "leaks": "…, looking for leaks",
    "plain": "dj_db_conn_pool",
    "plain_ping": "dj_db_conn_pool, ping",
    "native": "Django's native pool",
}


def make_room(place: Place) -> None:
    """Let the server take the connections of all ways at once, so that they can be measured in short turns."""
    server = timescale(place, read(Database), read(Monitor), read(Servers))
    superuser_sql(f"ALTER SYSTEM SET max_connections = {len(WAYS) * PROCESSES * THREADS + 20}")
    server.stop()
    server.start()


@dataclass(frozen=True)
class Web:
    """A web that runs."""

    port: int
    pid: int

    def processor_s(self) -> float:
        """Give the processor time that its processes have had, in seconds."""
        return sum(processor_s(pid) for pid in (self.pid, *children_of(self.pid)))


@contextmanager
def webs(folder: Path) -> Iterator[dict[str, Web]]:
    """Run a web for each way, for the length of a block."""
    with ExitStack() as running:
        yield {
            way: running.enter_context(_web(way, port, folder))
            for way, port in zip(WAYS, free_ports(len(WAYS)), strict=True)
        }


@dataclass(frozen=True)
class Turn:
    """What a web did in a turn."""

    requests_per_s: float
    processor_us: float
    """of the web's processes, for each request"""


def take_turn(way: str, web: Web) -> Turn:
    """Ask a web as fast as it answers.

    Raises:
        RuntimeError: a request failed.
    """
    begun_s = web.processor_s()
    answers = load(web.port, clients=CLIENTS, processes=PROCESSES, duration_s=TURN_S)
    if answers.bad:
        raise RuntimeError(f"{way}: {len(answers.bad)} requests failed, the first with {answers.bad[0]!r}")
    return Turn(answers.good / TURN_S, (web.processor_s() - begun_s) / answers.good * 1e6)


@contextmanager
def _web(way: str, port: int, folder: Path) -> Iterator[Web]:
    variables = {
        **os.environ,  # noqa: TID251 - handed on
        "POOLHOUSE_LEAK_THRESHOLD_S": "0",
        **WAYS[way],
        "CELERY_WORKER_RUNNING": "",
        "SERVICE_NAME": "",
        "DB_MAX_CONNS_DEV": str(THREADS),
        "DB_MAX_OVERFLOW_DEV": "0",
        "DB_MIN_CONNS": str(THREADS),
        "WEB_PORT": str(port),
        "WEB_PROCESSES": str(PROCESSES),
        "WEB_THREADS": str(THREADS),
        "POOLHOUSE_PUBLISH_INTERVAL_S": "1",
        "POOLHOUSE_REPORT_TTL_S": "5",
        "LOG_LEVEL": "WARNING",
    }
    command = [str(Path(sys.executable).parent / "gunicorn"), "lab.webapp:application", "--log-level", "warning"]
    with (folder / "log" / f"{way}.log").open("a") as log:
        process = subprocess.Popen(command, cwd=CHECKOUT / "backend", env=variables, stdout=log, stderr=log)
    try:
        _wait_until_it_answers(port, process)
        yield Web(port, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_it_answers(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                return
        except URLError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the web did not start: {error}") from error
            time.sleep(0.1)
