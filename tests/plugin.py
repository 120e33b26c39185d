"""A test run's own environment, made before Django reads its settings: ports, passwords and data that nobody shares.

It is loaded by name (`-p tests.plugin`), because pytest-django reads the settings before any conftest is.
"""

import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ["ENV_FILE"] = os.devnull  # a developer's .env must not leak into a test

import psycopg2
import pytest

from config.env import CHECKOUT, SECTIONS, Database, Queue, Servers, read
from sandbox import debian
from sandbox.servers import Place, broker, timescale


def free_ports(count: int) -> list[int]:
    """Find ports that nothing listens on, all different."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _set_environment() -> None:
    for section in SECTIONS:
        for name in section.model_fields:
            os.environ.pop(name.upper(), None)
    db_port, redis_port, pgbouncer_port = free_ports(3)
    os.environ |= {
        "SECRET_KEY": secrets.token_hex(32),
        "DB_PORT": str(db_port),
        "DB_PASS": secrets.token_hex(16),
        "REDIS_PORT": str(redis_port),
        "REDIS_PASSWORD": secrets.token_hex(16),
        "POSTGRES_PASSWORD": secrets.token_hex(16),
        "PGBOUNCER_PORT": str(pgbouncer_port),
        # Tests run on the standard backend; the pool is seen in the real web's processes.
        "CELERY_WORKER_RUNNING": "1",
        "SERVICE_NAME": "tests",
        # This process has no pool to report; the stacks that it starts do.
        "POOLHOUSE_PUBLISH_INTERVAL_S": "3600",
        "POOLHOUSE_REPORT_TTL_S": "7200",
    }


_set_environment()


@pytest.fixture(scope="session")
def servers() -> Iterator[Place]:
    """PostgreSQL with TimescaleDB, and Redis, for this run; one that cannot start is a failure, not a skip."""
    debian.ensure_tools()
    root = debian.cached_root()
    debian.make(root)
    data = Path(tempfile.mkdtemp(prefix="poolhouse-tests-"))
    place = Place(root, data, die_with_parent=True)
    started = [timescale(place, read(Database), read(Servers)), broker(place, read(Queue))]
    try:
        for server in started:
            server.start()
        # The application's role makes the test databases, which begin as copies of template1.
        superuser_sql("ALTER ROLE poolhouse CREATEDB")
        superuser_sql("CREATE EXTENSION IF NOT EXISTS timescaledb", database="template1")
        yield place
    finally:
        for server in reversed(started):
            server.stop()
        shutil.rmtree(data)


def superuser_sql(statement: str, database: str = "postgres") -> None:
    """Run a statement as the server's superuser."""
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


__all__ = ["CHECKOUT", "free_ports", "servers", "superuser_sql"]
