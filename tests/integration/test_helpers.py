"""The public helpers on a real server, including the examples of docs/app/helpers.md."""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection, connections, transaction
from django.db.utils import InternalError

from config.env import CHECKOUT
from poolhouse.helpers import (
    check_connection_health,
    db_connection_monitor,
    get_connection_info,
    log_connection_pool_stats,
    managed_transaction,
)
from poolhouse.process.pools import pool_states
from poolhouse.tracing.work import Work, current_work, doing
from tests.conftest import DEADLINE_S, await_that
from tests.integration.test_checks import STANDARD, in_a_project
from tests.integration.test_engine import OURS, PLAIN, MakePool, _database, borrowed, pool, pool_of
from tests.integration.void import Way

__all__ = ["_database", "pool_of"]


def run(sql: str, alias: str = "default") -> Any:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else None


def one(sql: str, alias: str = "default") -> Any:
    ((value,),) = run(sql, alias)
    return value


@pytest.fixture
def table() -> Iterator[str]:
    """Create a table with two rows that several connections can see."""
    run("CREATE TABLE account (id int PRIMARY KEY, amount int NOT NULL)")
    run("INSERT INTO account VALUES (1, 10), (2, 20)")
    yield "account"
    run("DROP TABLE account")


@contextmanager
def other_connection() -> Iterator[Any]:
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            yield cursor
    finally:
        other.close()


def ms(measured: float | None) -> float:
    assert measured is not None
    return measured


# db_connection_monitor


def test_a_block_is_measured_and_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "poolhouse.helpers.usage"),
        db_connection_monitor("report", slow_ms=10_000) as usage,
    ):
        run("SELECT pg_sleep(0.05)")
        run("SELECT 1")
    assert usage.statements == 2
    assert 50 <= usage.database_ms <= usage.elapsed_ms
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert re.fullmatch(r"report: 2 queries in \d+ ms; opened \d connections?; total \d+ ms", record.getMessage()), (
        "the standard engine measures neither waiting nor holding"
    )
    assert current_work() is None


@pytest.mark.parametrize(("slow_ms", "level"), [(20, "WARNING"), (-1, "INFO")])
def test_a_block_over_its_threshold_is_a_warning(caplog: pytest.LogCaptureFixture, slow_ms: int, level: str) -> None:
    with caplog.at_level(logging.INFO, "poolhouse.helpers.usage"), db_connection_monitor("report", slow_ms=slow_ms):
        run("SELECT pg_sleep(0.05)")
    assert [record.levelname for record in caplog.records] == [level]


def test_nested_blocks_count_as_part_of_their_request() -> None:
    with doing(Work("request", "GET /")) as request:
        run("SELECT 1")
        with db_connection_monitor("outer") as outer:
            run("SELECT 1")
            with db_connection_monitor("inner") as inner:
                assert current_work() is request
                run("SELECT pg_sleep(0.02)")
        run("SELECT 1")
    assert (request.statement_count, outer.statements, inner.statements) == (4, 2, 1)
    assert 20 <= inner.database_ms <= outer.database_ms <= request.database_s * 1000


@pytest.mark.parametrize("is_request", [True, False])
def test_a_block_reports_the_connections_of_a_pool(pool_of: MakePool, is_request: bool) -> None:
    alias = pool_of(OURS, POOL_SIZE=1, TIMEOUT=5)
    with doing(Work("request", "GET /") if is_request else None):  # type: ignore[arg-type]  # None: nobody has said
        with db_connection_monitor("first") as first:
            run("SELECT 1", alias)
        with db_connection_monitor("still held") as second:
            run("SELECT pg_sleep(0.05)", alias)
            connections[alias].close()
        with db_connection_monitor("lent again") as third:
            run("SELECT 1", alias)
            connections[alias].close()
    assert [usage.connections_opened for usage in (first, second, third)] == [1, 0, 0]
    assert ms(first.hold_ms) <= first.elapsed_ms
    assert 50 <= ms(second.hold_ms) <= second.elapsed_ms
    assert ms(third.hold_ms) <= third.elapsed_ms


def test_a_block_reports_its_wait_for_an_exhausted_pool(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=1)
    other = connections.create_connection(alias)
    other.ensure_connection()

    def release_late() -> None:
        await_that(lambda: pool(alias).waiting == 1)
        time.sleep(0.1)
        other.connection.close()

    release = threading.Thread(target=release_late)
    with db_connection_monitor("waits") as usage:
        release.start()
        run("SELECT 1", alias)
    release.join()
    assert 100 <= ms(usage.wait_ms) <= usage.elapsed_ms


def test_a_connection_of_the_standard_engine_counts_as_opened() -> None:
    connection.close()
    with db_connection_monitor("connects") as usage:
        run("SELECT 1")
    assert usage.connections_opened == 1
    assert (usage.wait_ms, usage.hold_ms) == (None, None), "nobody measures them"


def test_a_block_that_fails_is_measured_as_well(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "poolhouse.helpers.usage"),
        pytest.raises(InternalError),
        db_connection_monitor("fails") as usage,
    ):
        run("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'XX000'; END $$")
    assert usage.statements == 1
    assert caplog.records[0].getMessage().startswith("fails, failed with InternalError: 1 query in ")


# get_connection_info, log_connection_pool_stats


@pytest.mark.parametrize("engine", [OURS, PLAIN])
def test_connection_info_opens_no_connection(pool_of: MakePool, engine: str) -> None:
    alias = pool_of(engine)
    before = get_connection_info(alias)
    assert (before.is_open, before.backend_pid, before.held_s, before.age_s) == (False, None, None, None)
    assert connections[alias].connection is None
    run("SELECT pg_sleep(0.05)", alias)
    connections[alias].close()
    info = get_connection_info(alias, connect=True)
    assert info.is_open
    assert info.backend_pid == one("SELECT pg_backend_pid()", alias)
    assert info.application_name == one("SELECT current_setting('application_name')", alias)
    assert (info.engine, info.driver, info.in_transaction) == (engine, "psycopg2", False)
    assert info.pool.in_use == 1
    assert info.held_s is not None
    assert info.age_s is not None
    assert info.held_s + 0.05 <= info.age_s, "it was opened for the borrower before"


def test_the_age_of_a_standard_connection_is_its_hold_time() -> None:
    connection.close()
    with transaction.atomic():
        info = get_connection_info()
    assert info.in_transaction
    assert info.age_s == pytest.approx(info.held_s, abs=0.01)
    assert info.pool.kind == "per-thread"


def test_an_unknown_alias_is_named() -> None:
    with pytest.raises(KeyError, match="elsewhere"):
        get_connection_info("elsewhere")


def test_each_pool_is_logged_in_one_line(pool_of: MakePool, caplog: pytest.LogCaptureFixture) -> None:
    alias = pool_of(OURS)
    with borrowed(alias), caplog.at_level(logging.INFO, "poolhouse.helpers.inspection"):
        stats = log_connection_pool_stats()
        states = {state.alias: state for state in pool_states()}
    assert stats.keys() == states.keys() >= {"default", alias}
    assert (stats[alias].in_use, stats[alias].idle, stats[alias].waiting) == (1, 0, 0)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(stats)
    assert f"{alias} (queuepool, {OURS}): 1 in use, 0 idle, 0 waiting; size 2, max 2" in lines


# check_connection_health


def test_a_database_that_answers_is_healthy() -> None:
    health = check_connection_health()
    assert health
    assert (health.alias, health.reason) == ("default", "")
    assert health.took_ms > 0


def test_the_health_check_does_not_wait_for_an_exhausted_pool(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=1, TIMEOUT=DEADLINE_S)
    with borrowed(alias):
        health = check_connection_health(alias, timeout_s=DEADLINE_S)
    assert health
    assert health.took_ms < DEADLINE_S * 1000, "it waited for its turn"


@pytest.mark.parametrize("fault", ["freeze", "drop"])
@pytest.mark.parametrize("engine", [OURS, STANDARD])
def test_the_health_check_keeps_its_timeout_without_an_answer(pool_of: MakePool, engine: str, fault: str) -> None:
    alias = pool_of(engine)
    way = Way(int(connection.settings_dict["PORT"]))
    connections.settings[alias] |= {"HOST": "127.0.0.1", "PORT": way.port}
    try:
        assert check_connection_health(alias, timeout_s=DEADLINE_S), "the way is open"
        getattr(way, fault)()
        health = check_connection_health(alias, timeout_s=0.3)  # and only then the way is opened again
    finally:
        way.restore()
        way.close()
    assert not health
    assert health.reason == "no answer within 0.3 s"
    assert health.took_ms >= 300


def test_the_health_check_keeps_its_timeout_with_a_frozen_server(
    pool_of: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from poolhouse.helpers import liveness

    alias = pool_of(OURS)
    way = Way(int(connection.settings_dict["PORT"]))
    connections.settings[alias] |= {"HOST": "127.0.0.1", "PORT": way.port}

    def connect_and_freeze(timeout_s: float, connect: Callable[[], Any]) -> Any:
        connected = connect()
        way.freeze()
        return connected

    monkeypatch.setattr(liveness, "connect_within", connect_and_freeze)
    try:
        health = check_connection_health(alias, timeout_s=0.3)
    finally:
        way.close()
    assert (bool(health), health.reason) == (False, "no answer within 0.3 s")
    assert health.took_ms >= 300


def test_the_health_check_reports_the_driver_s_error(pool_of: MakePool) -> None:
    alias = pool_of(OURS)
    connections.settings[alias]["PORT"] = 1
    health = check_connection_health(alias)
    assert not health
    assert "refused" in health.reason
    assert "\n" not in health.reason


# managed_transaction

SETTINGS = ("transaction_isolation", "transaction_read_only", "statement_timeout", "lock_timeout", "work_mem")


def settings_of_session() -> dict[str, str]:
    return {name: one(f"SELECT current_setting('{name}')") for name in SETTINGS}


@pytest.mark.parametrize("ends_well", [True, False])
def test_the_settings_of_a_transaction_end_with_it(ends_well: bool) -> None:
    before = settings_of_session()
    pid = one("SELECT pg_backend_pid()")
    bounded = managed_transaction(
        isolation="serializable",
        read_only=True,
        statement_timeout_ms=1234,
        lock_timeout_ms=567,
        settings={"work_mem": "8MB"},
    )
    with suppress(ValueError), bounded:
        within = settings_of_session()
        if not ends_well:
            raise ValueError
    assert list(within.values()) == ["serializable", "on", "1234ms", "567ms", "8MB"]
    assert settings_of_session() == before
    assert one("SELECT pg_backend_pid()") == pid, "it is the same session"


def test_a_managed_transaction_causes_no_reset(pool_of: MakePool) -> None:
    alias = pool_of(OURS)
    with managed_transaction(alias, isolation="serializable", statement_timeout_ms=1000, settings={"jit": "off"}):
        assert one("SELECT current_setting('jit')", alias) == "off"
    connections[alias].close()
    assert pool(alias).meter.read()["counts"]["resets"] == 0


def test_without_arguments_it_is_a_plain_transaction(table: str) -> None:
    with suppress(ValueError), managed_transaction():
        run(f"UPDATE {table} SET amount = 0")
        raise ValueError
    with managed_transaction():
        run(f"UPDATE {table} SET amount = amount + 1")
    assert run(f"SELECT amount FROM {table} ORDER BY id") == [(11,), (21,)]


def test_the_timeouts_of_a_transaction_hold(table: str) -> None:
    with pytest.raises(OperationalError, match="statement timeout"), managed_transaction(statement_timeout_ms=30):
        run("SELECT pg_sleep(5)")
    with pytest.raises(InternalError, match="read-only"), managed_transaction(read_only=True):
        run(f"DELETE FROM {table}")
    with other_connection() as cursor:
        cursor.execute(f"BEGIN; UPDATE {table} SET amount = 0 WHERE id = 1")
        with pytest.raises(OperationalError, match="lock timeout"), managed_transaction(lock_timeout_ms=30):
            run(f"UPDATE {table} SET amount = 1 WHERE id = 1")
        cursor.execute("ROLLBACK")


def test_a_managed_transaction_must_be_the_outermost() -> None:
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"), managed_transaction(read_only=True):
        pass


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_serialization_failure_is_retried_up_to_attempts(
    table: str, attempts: int, caplog: pytest.LogCaptureFixture
) -> None:
    calls, committed = [], []

    @managed_transaction(isolation="repeatable read", attempts=attempts)
    def add(amount: int) -> int:
        calls.append(amount)
        transaction.on_commit(lambda: committed.append(amount))
        found: int = one(f"SELECT amount FROM {table} WHERE id = 1")
        if len(calls) == 1:  # another transaction is faster
            with other_connection() as cursor:
                cursor.execute(f"UPDATE {table} SET amount = 100 WHERE id = 1")
        run(f"UPDATE {table} SET amount = {found + amount} WHERE id = 1")
        return found + amount

    if attempts == 1:
        with pytest.raises(OperationalError, match="could not serialize"):
            add(5)
        assert one(f"SELECT amount FROM {table} WHERE id = 1") == 100
        return
    with caplog.at_level(logging.INFO, "poolhouse.helpers.transactions"):
        assert add(5) == 105
    assert one(f"SELECT amount FROM {table} WHERE id = 1") == 105
    assert (calls, committed) == ([5, 5], [5])
    (line,) = (record.getMessage() for record in caplog.records if record.name == "poolhouse.helpers.transactions")
    assert "add: serialization failure in attempt 1 of 2; retrying in " in line


def raising(sqlstate: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END $$"


@pytest.mark.parametrize(
    ("sqlstate", "calls"), [("40P01", 3), ("40001", 3), ("55P03", 1), ("57014", 1), ("57P01", 1), ("23505", 1)]
)
def test_only_serialization_failures_and_deadlocks_are_retried(sqlstate: str, calls: int) -> None:
    made = []

    @managed_transaction(attempts=3)
    def fail() -> None:
        made.append(1)
        run(raising(sqlstate))

    with pytest.raises(Exception, match="no"):
        fail()
    assert len(made) == calls


def test_an_error_of_a_commit_hook_is_not_retried(table: str) -> None:
    @managed_transaction(attempts=3)
    def add() -> None:
        run(f"UPDATE {table} SET amount = amount + 1 WHERE id = 1")
        transaction.on_commit(lambda: run(raising("40001")))

    with pytest.raises(OperationalError):
        add()
    assert one(f"SELECT amount FROM {table} WHERE id = 1") == 11


def test_a_decorated_function_runs_in_several_threads_at_once(table: str) -> None:
    """Add to the same row twice at once: one transaction fails with a serialization failure, and nothing is lost."""
    both = threading.Barrier(2, timeout=DEADLINE_S)
    reads: list[int] = []

    @managed_transaction(isolation="repeatable read", attempts=5)
    def add() -> None:
        reads.append(one(f"SELECT amount FROM {table} WHERE id = 1"))
        if len(reads) <= 2:
            both.wait(DEADLINE_S)
        run(f"UPDATE {table} SET amount = {reads[-1] if len(reads) > 2 else 10} + 1 WHERE id = 1")

    def work() -> None:
        try:
            add()
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one(f"SELECT amount FROM {table} WHERE id = 1") == 12
    assert reads == [10, 10, 11]


def test_invalid_arguments_are_rejected() -> None:
    with pytest.raises(TypeError, match="a block cannot be repeated"), managed_transaction(attempts=2):
        pass
    again = managed_transaction()
    with again:
        pass
    with pytest.raises(TypeError, match="create another"), again:
        pass
    with pytest.raises(ValueError, match="isolation: expected one of read committed"):
        managed_transaction(isolation="snapshot")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected the name of a server setting"):
        managed_transaction(settings={"work_mem = 1; DROP": 1})
    with pytest.raises(ValueError, match="attempts: expected 1 or more, got 0"):
        managed_transaction(attempts=0)

    async def later() -> None: ...

    with pytest.raises(TypeError, match="plain function"):
        managed_transaction()(later)


# Each engine, on psycopg 3, in a process of its own: this one has psycopg2.

EACH = """
django.setup()
from django.db import connection
from poolhouse.helpers import *

calls = []

@managed_transaction(isolation="serializable", statement_timeout_ms=500, settings={"work_mem": "8MB"}, attempts=2)
def ask():
    calls.append(1)
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('transaction_isolation'), current_setting('work_mem')")
        found = cursor.fetchone()
        if len(calls) == 1:
            cursor.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$")
    return found

info = get_connection_info(connect=True)
assert (info.driver, info.pool.in_use >= 1) == ("psycopg", True), info
with db_connection_monitor("twice") as usage:
    assert ask() == ("serializable", "8MB")
assert (len(calls), usage.statements) == (2, 5), usage
assert log_connection_pool_stats().keys() == {"default"}
assert check_connection_health()
assert optimize_timescaledb_queries() is not None
"""


@pytest.mark.parametrize(
    "database",
    [{"ENGINE": OURS}, {"ENGINE": PLAIN}, {"ENGINE": STANDARD}, {"ENGINE": STANDARD, "OPTIONS": {"pool": True}}],
)
def test_the_helpers_work_with_each_engine_on_psycopg_3(database: dict[str, Any]) -> None:
    in_a_project(EACH, **database)


# The examples of the manual.


def helpers_page() -> str:
    return (CHECKOUT / "docs/app/helpers.md").read_text()


@pytest.mark.django_db(transaction=True)
def test_the_examples_of_the_manual_run(table: str, caplog: pytest.LogCaptureFixture) -> None:
    program = "\n".join(re.findall(r"^```python\n(.*?)^```$", helpers_page(), re.MULTILINE | re.DOTALL))
    space: dict[str, Any] = {}
    user = User.objects.create(username="ada")
    try:
        with caplog.at_level(logging.INFO, "poolhouse"):
            exec(program, space)
    finally:
        user.delete()
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("active users: 1 query in ") for line in lines)
    assert space["usage"].statements == 1
    assert User.objects.filter(username="ada").count() == 0
    assert space["health"]
    assert asdict(space["info"])["alias"] == "default"


def test_every_helper_is_in_the_manual() -> None:
    from poolhouse import helpers

    text = helpers_page()
    missing = [name for name in helpers.__all__ if name.islower() and f"`{name}" not in text]
    assert missing == [], "docs/app/helpers.md: describe it, with an example"
