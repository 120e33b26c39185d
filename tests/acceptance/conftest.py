"""The real web, worker and beat, as the Procfile starts them, on their own database."""

import itertools
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import redis

from config.env import Monitor, Queue, read
from sandbox.servers import Place
from sandbox.stack import Stack
from telemetry.formats import SPOOL_MARKER
from tests import forked
from tests.conftest import DEADLINE_S
from tests.plugin import free_ports, superuser_sql

_numbers = itertools.count(1)
# Redis has sixteen databases: the tests themselves use 0, and some modules use the last ones.
_free_brokers = [*range(1, 13)]


@dataclass(frozen=True)
class Running:
    """A running stack and its manager."""

    stack: Stack
    manager: "subprocess.Popen[bytes]"

    def manage(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a management command in the stack's environment."""
        return manage(self.stack, *arguments, check=check)

    def status(self) -> dict[str, Any]:
        """Return the document of `db_pool_status --json`."""
        document: dict[str, Any] = json.loads(self.manage("db_pool_status", "--json").stdout)
        return document

    def get(self, path: str) -> dict[str, Any]:
        """Return a JSON document of the web, requested with METRICS_TOKEN."""
        with urlopen(Request(f"{self.stack.address}{path}", headers=reader()), timeout=DEADLINE_S) as answer:
            document: dict[str, Any] = json.load(answer)
            return document


def reader() -> dict[str, str]:
    """Return the headers that allow to read `/metrics` and the details of `/` and `/readyz`."""
    return {"Authorization": f"Bearer {read(Monitor).metrics_token.get_secret_value()}"}


@contextmanager
def started(stack: Stack) -> Iterator[Running]:
    """Run a stack during a block; it is ready when the block starts."""
    manager = stack.start()
    try:
        yield Running(stack, manager)
    finally:
        stack.stop(manager)


def prepared_spool(folder: Path) -> None:
    """Create a spool as migrate does; a copy of a migrated database is not migrated again."""
    folder.mkdir(exist_ok=True)
    (folder / SPOOL_MARKER).touch()


def manage(stack: Stack, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run a management command in its own process, with stdout and stderr captured."""
    answer = forked.manage(*arguments, env=stack.environment)
    if check:
        assert answer.returncode == 0, answer.stderr
    return answer


@pytest.fixture(scope="session")
def template_database(servers: Place, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the name of a migrated database; each stack gets a copy, which is faster than a migration."""
    name = "stack_template"
    superuser_sql(f"CREATE DATABASE {name} OWNER poolhouse")
    stack = Stack(tmp_path_factory.mktemp(name), 0, read(Queue).url, {"DB_NAME": name})
    manage(stack, "migrate", "--verbosity", "0")
    # A template can be copied only without connections, including those of TimescaleDB's background workers.
    superuser_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    superuser_sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    return name


@pytest.fixture(scope="module")
def make_stack(template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Stack]]:
    """Return a function that makes a stack, not started, with its own database and broker."""
    names, broker_urls = [], []

    def make(**variables: str) -> Stack:
        names.append(f"stack_{next(_numbers)}")
        superuser_sql(f"CREATE DATABASE {names[-1]} TEMPLATE {template_database} OWNER poolhouse")
        (port,) = free_ports(1)
        broker_url = f"{read(Queue).url.removesuffix('/0')}/{_free_brokers.pop()}"
        broker_urls.append(broker_url)
        folder = tmp_path_factory.mktemp(names[-1])
        settings = {
            "SANDBOX_DIR": str(folder),
            "INGEST_SPOOL": str(folder / "spool"),
            "DB_NAME": names[-1],
            "WEB_PORT": str(port),
            "CELERY_BROKER_URL": broker_url,
            "CELERY_WORKER_RUNNING": "",
            "SERVICE_NAME": "",
            "POOLHOUSE_PUBLISH_INTERVAL_S": "0.2",
            "POOLHOUSE_REPORT_TTL_S": "10",  # longer than any pause of a process on a busy machine
            "DB_CONN_MAX_AGE": "3600",
            **variables,
        }
        prepared_spool(Path(settings["INGEST_SPOOL"]))
        return Stack(folder, port, broker_url, settings)

    yield make
    for name in names:
        superuser_sql(f"DROP DATABASE {name} WITH (FORCE)")
    for broker_url in broker_urls:
        with redis.Redis.from_url(broker_url) as broker:
            broker.flushdb()
        _free_brokers.append(int(broker_url.rpartition("/")[2]))


@pytest.fixture(scope="module")
def running(make_stack: Callable[..., Stack]) -> Iterator[Running]:
    """Return a running stack with the default settings."""
    with started(make_stack()) as running:
        yield running
