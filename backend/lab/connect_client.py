"""`python -m lab.connect_client`: opens one connection at a time with either driver, and says how long that took.

It is a process of its own for two reasons. This project hides psycopg 3 from Django wherever the strategy's driver is
psycopg2; and here is nothing but the two drivers, so that neither is measured beside Django's memory and threads.

A line of JSON asks for each connection, an empty line for its end.
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
    """Do what each line asks, and answer with a line."""
    _say({"psycopg2": _version(psycopg2.__libpq_version__), "psycopg": _version(psycopg.pq.version())})
    for line in lines:
        connection, spans_ms = _open(**json.loads(line))
        _say(spans_ms)
        next(iter(lines))
        _close(connection)
        _say({})


def _open(*, driver: str, ask: bool, options: dict[str, Any]) -> tuple[Any, dict[str, float]]:
    """Connect, and give the milliseconds until the driver is content, and until it has a first answer if it asks."""
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
    """Close it and wait until the server's process has ended, which would otherwise take from the next one's time."""
    try:
        process = os.pidfd_open(connection.info.backend_pid)
    except ProcessLookupError:  # PgBouncer makes up a number
        connection.close()
        return
    connection.close()
    select.select([process], [], [], 1)
    os.close(process)


def _version(number: int) -> str:
    return f"{number // 10_000}.{number % 10_000}"


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        serve(sys.stdin)
    except ConnectionError:
        os._exit(1)  # who asked has ended, and there is nobody to tell
