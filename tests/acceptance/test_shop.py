"""Projects of other people's that add this app: both drivers, each kind of engine, with and without PgBouncer."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
SHOP = "tests.acceptance.shop"
TIMEOUT_S = 3
POOLED = {"ENGINE": OURS, "POOL_OPTIONS": {"POOL_SIZE": 2, "MAX_OVERFLOW": 0, "TIMEOUT": TIMEOUT_S}}
NATIVE = {
    "ENGINE": STANDARD,
    "CONN_HEALTH_CHECKS": True,
    "OPTIONS": {"pool": {"min_size": 1, "max_size": 2, "timeout": TIMEOUT_S}},
}


@dataclass(frozen=True)
class Kind:
    """What such a project can differ in."""

    driver: str
    database: dict[str, Any]
    is_behind_pgbouncer: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether it has this app's engine."""
        return bool(self.database["ENGINE"] == OURS)

    @property
    def losses(self) -> tuple[str, ...]:
        """How connections get lost: of a COPY that PgBouncer ends, psycopg makes a ProgrammingError."""
        return ("statement",) if self.is_behind_pgbouncer else ("statement", "copy")

    @property
    def is_pooled(self) -> bool:
        """Whether threads share connections."""
        return self.is_ours or "pool" in self.database.get("OPTIONS", {})


KEPT = {"ENGINE": STANDARD, "CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}
KINDS = {
    "psycopg2-standard": Kind("psycopg2", KEPT),
    "psycopg2-standard-pgbouncer": Kind("psycopg2", KEPT, is_behind_pgbouncer=True),
    "psycopg-native": Kind("psycopg", NATIVE),
    "psycopg-native-pgbouncer": Kind("psycopg", NATIVE, is_behind_pgbouncer=True),
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


def failures(lines: list[str]) -> list[str]:
    return [line for line in lines if re.search(r"database \S+ failed ", line)]


def test_requests_and_tasks_work_and_each_process_is_named_after_its_start(shop: Shop) -> None:
    assert shop.ask("login/")[0] == 200
    assert shop.ask() == (200, "ada, one of 1")
    assert shop.run("count").get(timeout=DEADLINE_S) == 1
    found: dict[str, Any] = {}

    def both_report() -> bool:
        found.update(shop.status())
        return {process["service"] for process in found["processes"]} == {"web", "worker"}

    await_that(both_report)
    reasons = [reason for reason in found["verdict"]["reasons"] if "through PgBouncer" in reason]
    assert bool(reasons) == shop.kind.is_behind_pgbouncer, found["verdict"]


def test_what_nobody_measures_is_left_out(shop: Shop) -> None:
    with shop.browser.open(f"http://127.0.0.1:{shop.port}/", timeout=DEADLINE_S) as answer:
        told = answer.headers["Server-Timing"]
    assert ("pool-wait" in told) == shop.kind.is_ours
    shop.run("count").get(timeout=DEADLINE_S)
    for process, work in (("web", "request GET /"), ("worker", "task tests.acceptance.shop.count")):
        await_that(lambda name=process, of=work: [one for one in shop.log(name) if f"costly {of}" in one])  # type: ignore[misc]
        lines = [line for line in shop.log(process) if f"costly {work}" in line]
        assert {"; wait " in line and ", hold " in line for line in lines} == {shop.kind.is_ours}, lines


def test_a_command_is_no_leak_however_long_it_holds_its_connection(shop: Shop) -> None:
    program = "import time; from django.db import connection; connection.ensure_connection(); time.sleep(1)"
    answer = shop.manage("shell", "-c", program)
    assert (answer.returncode, "leak suspect" in answer.stderr) == (0, False), answer.stderr


def test_a_connection_that_is_lost_is_one_line_with_alias_and_work(shop: Shop) -> None:
    for how in shop.kind.losses:
        web, worker = len(shop.log("web")), len(shop.log("worker"))
        assert shop.ask(f"fail/{how}/")[0] == 500
        (line,) = failures(shop.log("web")[web:])
        assert line.startswith(f"database default failed request GET /fail/{how}/, view {SHOP}.fail: ")
        result = shop.run("fail_in_task", how)
        result.get(timeout=DEADLINE_S, propagate=False)
        assert result.failed()
        (line,) = await_that(lambda since=worker: failures(shop.log("worker")[since:]))  # type: ignore[misc]
        assert f"database default failed task {SHOP}.fail_in_task[{result.id}]: " in line


def test_a_server_that_is_away_is_one_line_for_a_request_whose_middlewares_all_meet_it(shop: Shop) -> None:
    before = len(shop.log("web"))
    superuser_sql(f"ALTER DATABASE {NAME} ALLOW_CONNECTIONS false")
    try:
        superuser_sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{NAME}'")
        assert shop.ask()[0] == 500
        assert shop.ask("metrics")[0] == 200
    finally:
        superuser_sql(f"ALTER DATABASE {NAME} ALLOW_CONNECTIONS true")
    lines = failures(shop.log("web")[before:])
    aliases = [line.split()[1] for line in lines]
    assert sorted(set(aliases)) == sorted(aliases), lines
    assert set(aliases) in ({"default"}, {"archive", "default"}), "with a pool, ATOMIC_REQUESTS of archive fails first"
    assert all(f"failed request GET /, view {SHOP}.index: " in line for line in lines), lines
    await_that(lambda: shop.ask()[0] == 200)


def test_an_exhausted_pool_is_critical_and_metrics_answer(shop: Shop) -> None:
    for _ in range(2):
        # psycopg's pool may still wait until it tries the server again that was away.
        await_that(lambda: shop.ask("leak/") == (200, "leaked"))
    with ThreadPoolExecutor(4) as askers:
        answers = {status for status, _ in askers.map(shop.ask, ["quiet/"] * 12)}
    assert shop.ask("metrics")[0] == 200
    if not shop.kind.is_pooled:
        assert answers == {200}
        return
    assert answers == {503 if shop.kind.is_ours else 500}

    def is_critical() -> bool:
        return shop.manage("db_pool_status", "--fail-on", "critical").returncode == 2

    await_that(is_critical)
    status = shop.status()
    timeouts = [reason for reason in status["verdict"]["reasons"] if "pool timeout" in reason]
    assert any("web (default): " in reason and "in the last 60 s" in reason for reason in timeouts), timeouts
    if shop.kind.is_ours:  # psycopg's pool tells the sum of the waits alone
        (web,) = (process for process in status["processes"] if process["service"] == "web")
        (pool,) = (one for one in web["pools"] if one["alias"] == "default")
        assert pool["wait"]["count"] == pool["counts"]["lent"] + pool["counts"]["timeouts"]
