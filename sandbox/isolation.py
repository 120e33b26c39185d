"""Isolated servers for a test run or an experiment: own ports, own passwords, temporary data."""

import atexit
import itertools
import os
import random
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2

from sandbox.processes import marked_processes, stop_process

if TYPE_CHECKING:
    from config.env import Database
    from sandbox.servers import Place


# Below Linux's range of client ports, so that no outgoing connection takes one before its server has started.
PORTS = range(10_000, 32_768)
# All processes that this one starts have this variable, so that one whose start was interrupted can be found.
MARK = "POOLHOUSE_ISOLATED"
STOP_TIMEOUT_S = 10

_spools: list[str] = []


def free_ports(count: int) -> list[int]:
    """Return ports that are free and that this function returns to no other process while this one runs."""
    candidates = iter(lambda: random.choice(PORTS), None)  # noqa: S311 - not a secret
    return list(itertools.islice(filter(_reserve, candidates), count))


def _reserve(port: int) -> bool:
    """Return True if the port is free; reserve it by an abstract socket, which ends with this process."""
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(f"\0poolhouse-port-{port}")
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        reservation.close()
        return False
    reservation.detach()  # the descriptor stays open: the kernel closes it when this process ends
    return True


def isolate(service: str) -> None:
    """Replace this process's variables before they are read: no .env and no existing variable has an effect.

    Args:
        service: this process's SERVICE_NAME. The process uses the standard backend and publishes no pool reports.
    """
    os.environ["ENV_FILE"] = os.devnull
    from config.env import SECTIONS  # after ENV_FILE is set: a section reads it when it is defined

    for section in SECTIONS:
        for name in section.model_fields:
            os.environ.pop(name.upper(), None)
    db_port, redis_port, pgbouncer_port = free_ports(3)
    os.environ |= {
        "SECRET_KEY": secrets.token_hex(32),
        "DB_PORT": str(db_port),
        "DB_PASS": secrets.token_hex(16),
        "DB_MONITOR_PASS": secrets.token_hex(16),
        "METRICS_TOKEN": secrets.token_hex(16),
        "REDIS_PORT": str(redis_port),
        "REDIS_PASSWORD": secrets.token_hex(16),
        "POSTGRES_PASSWORD": secrets.token_hex(16),
        "PGBOUNCER_PORT": str(pgbouncer_port),
        "CELERY_WORKER_RUNNING": "1",
        "SERVICE_NAME": service,
        "POOLHOUSE_PUBLISH_INTERVAL_S": "3600",
        "POOLHOUSE_REPORT_TTL_S": "7200",
        "INGEST_SPOOL": _make_spool(),
        MARK: secrets.token_hex(8),
    }


def stop_left_behind() -> None:
    """Stop all processes that descend from this one and were started after `isolate`."""
    for pid in marked_processes(f"{MARK}={os.environ[MARK]}"):
        stop_process(pid, signal.SIGTERM, STOP_TIMEOUT_S)


def _make_spool() -> str:
    folder = tempfile.mkdtemp(prefix="poolhouse-spool-")
    _spools.append(folder)
    atexit.register(remove_spool)
    return folder


def remove_spool() -> None:
    """Remove the spool that `isolate` made, even if INGEST_SPOOL has changed since."""
    while _spools:
        shutil.rmtree(_spools.pop(), ignore_errors=True)


@contextmanager
def isolated_servers() -> Iterator["Place"]:
    """Run PostgreSQL with TimescaleDB, and Redis, as the environment configures them, during a block.

    Raises:
        SandboxError: a server did not start.
    """
    from config.env import Database, Monitor, Queue, Servers, read
    from sandbox import debian
    from sandbox.servers import Place, broker, timescale

    debian.ensure_tools()
    debian.make(debian.cached_root())
    data = Path(tempfile.mkdtemp(prefix="poolhouse-"))
    place = Place(debian.cached_root(), data, die_with_parent=True)
    servers = [timescale(place, read(Database), read(Monitor), read(Servers)), broker(place, read(Queue))]
    try:
        for server in servers:
            server.start()
        yield place
    finally:
        for server in reversed(servers):
            server.stop()
        shutil.rmtree(data)


def connect(database: "Database", *, name: str = "") -> "psycopg2.extensions.connection":
    """Return a connection of the application's role, made without Django.

    Args:
        database: the server and the role.
        name: the database, if not DB_NAME.
    """
    return psycopg2.connect(
        host=database.db_host,
        port=database.db_port,
        user=database.db_user,
        password=database.db_pass.get_secret_value(),
        dbname=name or database.db_name,
    )


def superuser_sql(statement: str, database: str = "postgres") -> None:
    """Run a statement as the server's superuser."""
    from config.env import Database, Servers, read

    connection = psycopg2.connect(
        host="127.0.0.1",
        port=read(Database).db_port,
        user="postgres",
        password=read(Servers).postgres_password.get_secret_value(),
        dbname=database,
    )
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()
