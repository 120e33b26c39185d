"""Projects of other people's that add this app: both drivers, each kind of engine, with and without PgBouncer."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import pytest
from celery import Celery

from config.env import CHECKOUT, Database, Monitor, Queue, read
from sandbox.servers import Place, pgbouncer
from tests.acceptance.test_wheel import OURS, STANDARD, database_settings
from tests.conftest import DEADLINE_S, await_that
from tests.plugin import free_ports, superuser_sql

NAME = "shop"
TIMEOUT_S = 0.5
POOLED = {"ENGINE": OURS, "POOL_OPTIONS": {"POOL_SIZE": 2, "MAX_OVERFLOW": 0, "TIMEOUT": TIMEOUT_S}}
NATIVE = {"ENGINE": STANDARD, "OPTIONS": {"pool": {"min_size": 1, "max_size": 2, "timeout": TIMEOUT_S}}}


@dataclass(frozen=True)
class Kind:
    """What such a project can differ in."""

    driver: str
    database: dict[str, Any]
    is_behind_pgbouncer: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether it has this app's engine."""
        return self.database["ENGINE"] == OURS


KINDS = {
    "psycopg2-standard": Kind("psycopg2", {"ENGINE": STANDARD, "CONN_MAX_AGE": 60}),
    "psycopg-native": Kind("psycopg", NATIVE),
    "psycopg2-poolhouse": Kind("psycopg2", POOLED),
    "psycopg-poolhouse-pgbouncer": Kind("psycopg", POOLED, is_behind_pgbouncer=True),
}


@dataclass(frozen=True)
class Shop:
    """A project that runs: its web, and its worker."""

    kind: Kind
    folder: Path
    environment: dict[str, str]
    port: int
    celery: Celery
    browser: OpenerDirector
    """with the session's cookie"""

    def ask(self, page: str = "") -> tuple[int, str]:
        """Return the answer's status and body."""
        try:
            with self.browser.open(f"http://127.0.0.1:{self.port}/{page}", timeout=DEADLINE_S) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def run(self, task: str, *arguments: str) -> Any:
        """Return what a task gives."""
        return self.celery.send_task(f"tests.acceptance.shop.{task}", arguments, queue="shop")

    def manage(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a management command."""
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)

    def status(self) -> dict[str, Any]:
        """Return what `db_pool_status --json` says."""
        document: dict[str, Any] = json.loads(self.manage("db_pool_status", "--json").stdout)
        return document

    def log(self, process: str) -> list[str]:
        """Return the lines that a process has logged."""
        return (self.folder / f"{process}.log").read_text().splitlines()

    def is_up(self) -> bool:
        """Return True if the web answers."""
        try:
            return self.ask("metrics")[0] == 200
        except (URLError, ConnectionError):
            return False

    @contextmanager
    def running(self, process: str, *arguments: str) -> Iterator[None]:
        """Run a process for the length of a block."""
        with (
            (self.folder / f"{process}.log").open("w") as log,
            subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            ) as started,
        ):
            try:
                yield
            finally:
                os.killpg(started.pid, signal.SIGKILL)  # its children as well


@pytest.fixture(scope="module", params=KINDS)
def shop(request: pytest.FixtureRequest, servers: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A project with a database of its own; its web has four threads, its worker forks one child."""
    kind, folder = KINDS[request.param], tmp_path_factory.mktemp(NAME)
    database = read(Database).model_copy(update={"db_name": NAME})
    superuser_sql(f"CREATE DATABASE {NAME} OWNER poolhouse")
    with ExitStack() as stack:
        stack.callback(superuser_sql, f"DROP DATABASE {NAME} WITH (FORCE)")
        default = {**database_settings(database), **kind.database, "ATOMIC_REQUESTS": True}
        if kind.is_behind_pgbouncer:
            pooler = pgbouncer(servers, database, read(Monitor))
            pooler.start()
            stack.callback(pooler.stop)
            default |= {"PORT": pooler.port, "NAME": f"{NAME}_transaction", "DISABLE_SERVER_SIDE_CURSORS": True}
        broker_url = read(Queue).url.removesuffix("/0") + "/14"
        poolhouse = {"REDIS_URL": broker_url, "PUBLISH_INTERVAL_S": 0.1, "LEAK_THRESHOLD_S": 0.2, "REQUEST_QUERIES": 0}
        given = {
            "driver": kind.driver,
            "databases": {"default": default, "archive": default},
            "poolhouse": poolhouse | {"REPORT_TTL_S": 10, "SERVER_TIMING": True},
            "broker_url": broker_url,
        }
        environment = {**os.environ, "SHOP": json.dumps(given)}
        environment["PYTHONPATH"] = f"{CHECKOUT}{os.pathsep}{CHECKOUT / 'backend'}"
        (folder / "manage.py").write_text(
            "import sys\nfrom tests.acceptance.shop import manage\nmanage(*sys.argv[1:])\n"
        )
        (port,) = free_ports(1)
        client = Celery("client", broker=broker_url, backend=broker_url, set_as_current=False)
        client.conf.result_key_prefix = "shop"
        made = Shop(kind, folder, environment, port, client, build_opener(HTTPCookieProcessor()))
        migrated = made.manage("migrate")
        assert migrated.returncode == 0, migrated.stderr
        (folder / "migrate.log").write_text(migrated.stderr)
        bind = ["--bind", f"127.0.0.1:{port}", "--threads", "4", "--log-level", "warning"]
        stack.enter_context(made.running("web", "gunicorn", "tests.acceptance.shop:application", *bind))
        worker = ["--app", "tests.acceptance.shop", "worker", "--queues", "shop", "--concurrency", "1"]
        stack.enter_context(made.running("worker", "celery", *worker))
        await_that(made.is_up)
        yield made


def test_x(shop: Shop) -> None:
    print(shop.ask("login/"))
    print(shop.ask())
    print(shop.run("count").get(timeout=60))
    print("MARK", len(shop.log("web")), len(shop.log("worker")))
    superuser_sql(f"ALTER DATABASE {NAME} ALLOW_CONNECTIONS false")
    superuser_sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{NAME}'")
    n, m = len(shop.log("web")), len(shop.log("worker"))
    print("SECOND", shop.ask())
    try:
        shop.run("count").get(timeout=60)
    except Exception as e:
        print(repr(e))
    print("\n".join(shop.log("web")[n:]))
    print("\n".join(shop.log("worker")[m:]))
    assert 0
