"""`python -m lab.connect_client`: opens one connection at a time with either driver, and measures it.

It is a process of its own for two reasons. This project hides psycopg 3 from Django wherever the strategy's driver is
psycopg2; and this process contains only the two drivers, so that Django's memory and threads do not affect them.

A line of JSON requests a connection, the next line closes it.
"""

import json
import os
import select
import sys
import time
from collections.abc import Iterable
from typing import Any

import psycopg
import psycopg2

DRIVERS = {"psycopg2": psycopg2.connect, "psycopg": psycopg.connect}


def serve(lines: Iterable[str]) -> None:
    """Answer each request with a line."""
    _reply({"psycopg2": _version(psycopg2.__libpq_version__), "psycopg": _version(psycopg.pq.version())})
    for line in lines:
        connection, spans_ms = _open(**json.loads(line))
        _reply(spans_ms)
        next(iter(lines))
        _close(connection)
        _reply({})


def _open(*, driver: str, ask: bool, options: dict[str, Any]) -> tuple[Any, dict[str, float]]:
    """Connect; return the milliseconds until the driver has connected, and until the first answer if `ask` is set."""
    begun_s = time.perf_counter()
    connection: Any = DRIVERS[driver](**options)
    connected_s = time.perf_counter()
    if ask:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()
    answered_s = time.perf_counter()
    return connection, {"connect": (connected_s - begun_s) * 1e3, "answer": (answered_s - begun_s) * 1e3}


def _close(connection: Any) -> None:
    """Close it and wait for the end of its backend, which would otherwise slow down the next connection."""
    try:
        process = os.pidfd_open(connection.info.backend_pid)
    except ProcessLookupError:  # PgBouncer invents a PID
        connection.close()
        return
    connection.close()
    select.select([process], [], [], 1)
    os.close(process)


def _version(number: int) -> str:
    return f"{number // 10_000}.{number % 10_000}"


def _reply(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        serve(sys.stdin)
    except ConnectionError:
        os._exit(1)  # the parent process has ended
