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
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from config.env import CHECKOUT
from lab.load import load
from sandbox.isolation import free_ports

PROCESSES, THREADS, CLIENTS = 2, 8, 16
START_TIMEOUT_S = 30
WARM_UP_S, MEASURED_S = 0.7, 3.0

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


def requests_per_s(way: str, folder: Path) -> float:
    """Start a web with a way to keep connections, and give how many requests it serves in a second.

    Raises:
        RuntimeError: a request failed.
    """
    (port,) = free_ports(1)
    with _web(way, port, folder):
        load(port, clients=CLIENTS, duration_s=WARM_UP_S)
        answers = load(port, clients=CLIENTS, duration_s=MEASURED_S)
    if answers.bad:
        raise RuntimeError(f"{way}: {len(answers.bad)} requests failed, the first with {answers.bad[0]!r}")
    return answers.good / MEASURED_S


@contextmanager
def _web(way: str, port: int, folder: Path) -> Iterator[None]:
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
        yield
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
