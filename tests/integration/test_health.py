"""The statements that processes report, and the health report that follows, on a real server."""

import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from django.core.management import CommandError
from django.db import DatabaseError, IntegrityError, connection, connections

from poolhouse.health import get_connection_pool_health, print_connection_pool_report
from poolhouse.measures import statement_meter
from poolhouse.measures.statement_meter import StatementMeter, meter
from poolhouse.process.pools import pool_states
from poolhouse.reports.publisher import activity_of
from poolhouse.reports.report import ProcessReport
from poolhouse.reports.store import store
from poolhouse.tracing.work import Work, doing
from tests.conftest import Stopwatch
from tests.integration.conftest import run
from tests.integration.test_engine import OURS, MakePool, _database, pool_of

FAILED = "100.0 % of the queries failed over the last 5 min (critical at 5 %): the logs of the services have the errors"

__all__ = ["_database", "pool_of"]

pytestmark = pytest.mark.django_db(transaction=True)

Configure = Callable[..., None]


@pytest.fixture(autouse=True)
def fresh_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the meter by one that has counted nothing."""
    connection.ensure_connection()
    monkeypatch.setattr(statement_meter, "_meter", StatementMeter())


@pytest.fixture(autouse=True)
def _without_a_fleet(configure: Configure) -> None:
    """Expect no other service."""
    configure(FLEET={})


@pytest.fixture
def web() -> Iterator[None]:
    """Publish the report of another process, with the activity of this one."""
    reports = store()
    assert reports
    done = activity_of(pool_states())
    report = ProcessReport("web@box:1", "web", "box", 1, time.time(), time.time(), tuple(pool_states()), done, done)
    reports.publish(report)
    yield
    reports.withdraw(report.key)


def ask(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def test_statements_are_counted_with_and_without_a_request() -> None:
    with Stopwatch() as asking:
        ask("SELECT pg_sleep(0.05)")
        with doing(Work("request", "GET /")):
            ask("SELECT 1")
        with pytest.raises(DatabaseError):
            ask("SELECT 1 / 0")
    durations, errors = meter().read()["default"]
    assert (durations.count, errors) == (3, 1)
    assert 0.05 <= durations.total_s <= asking.s
    (done,) = activity_of(pool_states())
    assert (done.alias, done.statements, done.errors, done.timeouts) == ("default", durations, 1, 0)


def test_a_violated_constraint_is_not_counted_as_an_error() -> None:
    ask("CREATE TEMPORARY TABLE unique_number (number int PRIMARY KEY)")
    for _ in range(2):
        with suppress(IntegrityError):
            ask("INSERT INTO unique_number VALUES (1)")
    durations, errors = meter().read()["default"]
    assert (durations.count, errors) == (3, 0)


def test_a_wrong_password_is_critical(pool_of: MakePool) -> None:
    alias = pool_of(OURS)
    connections.settings[alias]["PASSWORD"] = "rotated"
    for _ in range(3):
        with pytest.raises(DatabaseError):
            connections.create_connection(alias).ensure_connection()
    pools = [pool for pool in pool_states() if pool.alias == alias]
    done = activity_of(pools)
    now = time.time()
    reports = store()
    assert reports
    report = ProcessReport("web@box:1", "web", "box", 1, now, now, tuple(pools), done, done)
    reports.publish(report)
    try:
        health = get_connection_pool_health(alias)
        assert get_connection_pool_health("default")["status"] == "HEALTHY", "it is another alias'"
    finally:
        reports.withdraw(report.key)
    assert health["status"] == "CRITICAL"
    reasons = [alert["reason"] for alert in health["alerts"]]
    assert any(
        reason.startswith("web: 3 connections could not be opened over the last 5 min, and 0 are") for reason in reasons
    )


def test_statements_of_many_threads_are_all_counted() -> None:
    def note() -> None:
        for _ in range(5_000):
            meter().note("default", 0.001, failed=True)

    threads = [threading.Thread(target=note) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    durations, errors = meter().read()["default"]
    assert (durations.count, errors) == (40_000, 40_000)


def test_a_forked_child_counts_from_zero() -> None:
    ask("SELECT 1")
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writing, json.dumps(list(meter().read())).encode())
        os.kill(os.getpid(), signal.SIGKILL)  # no pytest in the child
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        assert json.load(answer) == []
    assert meter().read()["default"][0].count == 1


@pytest.mark.usefixtures("web")
def test_the_health_report_covers_the_fleet() -> None:
    health = get_connection_pool_health()
    assert (health["schema"], health["status"], health["alias"]) == (2, "HEALTHY", "default")
    assert health["database"] == connection.settings_dict["NAME"]
    assert health["max_connections"] == 35
    assert health["active_connections"] == len(health["connections"]) >= 1
    assert health["backend_pid"] in [one["pid"] for one in health["connections"]]
    assert health["connection_max_age_s"] == 60
    assert health["queries"]["count"] == health["recent_queries"]["count"] == 0


def test_the_reported_activity_is_judged(request: pytest.FixtureRequest) -> None:
    for _ in range(20):
        with pytest.raises(DatabaseError):
            ask("SELECT 1 / 0")
    request.getfixturevalue("web")
    health = get_connection_pool_health()
    assert (health["status"], health["queries"]["errors"]) == ("CRITICAL", 20)
    assert health["alerts"][0] == {
        "level": "critical",
        "reason": FAILED,
    }
    out = io.StringIO()
    print_connection_pool_report(out=out)
    assert out.getvalue().startswith(f"CRITICAL\n  {FAILED}\n")
    document = json.loads(run("monitor_connection_pool", "--json"))
    assert (document["status"], document["queries"]["count"]) == ("CRITICAL", 20)
    with pytest.raises(SystemExit, match="2"):
        run("monitor_connection_pool", "--fail-on", "critical")


@pytest.mark.usefixtures("web")
def test_an_unreachable_store_is_named_and_the_rest_is_shown(configure: Configure) -> None:
    configure(REDIS_URL="redis://127.0.0.1:1/0")
    store.cache_clear()
    try:
        health = get_connection_pool_health()
    finally:
        store.cache_clear()
    assert (health["status"], health["queries"]) == ("WARNING", None)
    assert health["alerts"][0]["reason"].startswith("process reports are unreachable: Redis: ")
    assert health["active_connections"] >= 1


def test_an_error_of_the_command_itself_exits_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("of a kind that nobody thought of")

    monkeypatch.setattr("poolhouse.management.commands.db_pool_status.take_status", fail)
    with pytest.raises(CommandError, match=r"^RuntimeError: of a kind that nobody thought of") as raised:
        run("db_pool_status", "--fail-on", "warning")
    assert raised.value.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["monitor_connection_pool", "--database", "nowhere"],
            "--database: expected the alias of a PostgreSQL database, got 'nowhere'; allowed: default",
        ),
        (["db_pool_status", "--database", "nowhere"], "expected the alias of a PostgreSQL database"),
        (["db_pool_status", "--watch", "--fail-on", "warning"], "cannot be combined with --watch"),
        (["db_pool_status", "--interval", "0"], "expected a number of seconds"),
        (["db_pool_status", "--interval", "nan"], "expected a number of seconds"),
        (["db_pool_status", "--fail-on", "ok"], "invalid choice"),
    ],
)
def test_invalid_options_are_rejected(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        run(*arguments)
