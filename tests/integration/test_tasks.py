"""The log lines about Celery tasks that run eagerly; the acceptance tests use a real worker."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, Task
from django.db import OperationalError, connection, connections
from pytest_django import Settings

from config.env import CHECKOUT
from poolhouse.conf import options
from poolhouse.errors import PoolTimeoutError, PoolUse
from poolhouse.tracing import statements
from poolhouse.tracing.throttle import Throttle
from poolhouse.tracing.work import Work, current_work, doing

pytestmark = pytest.mark.django_db

app = Celery("tests", set_as_current=False, broker="memory://")


def run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


@app.task(name="ask")
def ask(count: int) -> tuple[str, int]:
    for _ in range(count):
        run("SELECT pg_sleep(0.03)")
    work = current_work()
    assert work is not None
    return str(work), work.statement_count


@app.task(name="ask_through_another")
def ask_through_another() -> tuple[str, tuple[str, int], str]:
    before = str(current_work())
    run("SELECT 1")
    return before, ask.apply(args=(2,)).get(), str(current_work())


@app.task(name="fail")
def fail() -> None:
    unreachable = connections.create_connection("default")
    unreachable.settings_dict = {**unreachable.settings_dict, "PORT": 1}
    unreachable.ensure_connection()


@app.task(name="wait_in_vain")
def wait_in_vain() -> None:
    raise PoolTimeoutError("default", 1.5, PoolUse(2, 0, 2, 1), "", "all are lent")


@app.task(name="misuse")
def misuse() -> None:
    raise ValueError("no matter of the database")


@app.task(name="try_again", bind=True, max_retries=1, default_retry_delay=0)
def try_again(self: "Task[Any, Any]", how: str) -> str:
    try:
        if self.request.retries == 0:
            raise OperationalError("the server is away")
    except OperationalError as error:
        raise (self.retry(exc=error) if how == "named" else self.retry()) from error
    return str(current_work())


@pytest.fixture(autouse=True)
def logged(settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """The log lines of poolhouse: statements of 20 ms, and tasks with more than two statements."""
    settings.POOLHOUSE = {**settings.POOLHOUSE, "SLOW_QUERY_MS": 20, "REQUEST_QUERIES": 2}
    options.cache_clear()
    monkeypatch.setattr(statements, "_slow", Throttle())
    yield lambda: [record.getMessage() for record in caplog.records if record.name.startswith("poolhouse.")]
    options.cache_clear()


Logged = Callable[[], list[str]]


def test_a_task_is_named_by_name_and_id_and_counts_its_own_statements(logged: Logged) -> None:
    told = ask.apply(args=(1,), task_id="6f").get()
    assert told == ("task ask[6f]", 1)
    assert current_work() is None
    (slow,) = logged()
    assert slow.startswith("slow statement: ")
    assert f"on default for task ask[6f] at {__file__}:" in slow


def test_a_costly_task_is_logged(logged: Logged) -> None:
    ask.apply(args=(3,), task_id="6f").get()
    assert logged()[-1].startswith("costly task ask[6f]: 3 queries in ")


def test_a_nested_task_restores_the_outer_work() -> None:
    with doing(Work("request", "GET /")) as request:
        before, inner, after = ask_through_another.apply(task_id="6f").get()
        assert current_work() is request
    assert (before, after) == ("task ask_through_another[6f]",) * 2
    assert inner[0].startswith("task ask[")
    assert inner[1] == 2
    assert request.statement_count == 0


def test_a_failing_task_is_logged_with_alias_and_task(logged: Logged) -> None:
    for task in (fail, wait_in_vain):
        task.apply(task_id="6f")
    first, second = logged()
    assert first.startswith("database default failed task fail[6f]: OperationalError: ")
    assert second.startswith("database default failed task wait_in_vain[6f]: PoolTimeoutError: default: no connection")
    assert current_work() is None


def test_errors_unrelated_to_the_database_are_not_logged(logged: Logged) -> None:
    misuse.apply()
    assert logged() == []
    assert current_work() is None


@pytest.mark.parametrize("how", ["named", "handled"])
def test_a_retry_is_logged_with_its_reason_and_leaves_nothing_behind(logged: Logged, how: str) -> None:
    with doing(Work("request", "GET /")) as request:
        try_again.apply(args=(how,), task_id="6f")
        assert current_work() is request
    assert logged() == ["database default failed task try_again[6f]: OperationalError: the server is away"]


def test_the_app_starts_without_celery() -> None:
    program = """
import sys
sys.modules["celery"] = None
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["poolhouse"])
django.setup()
assert "poolhouse.tracing.statements" in sys.modules
assert "poolhouse.tasks" not in sys.modules
"""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "backend")}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
