"""The pool with changed settings, failing servers, threads, garbage collection and careless holders."""

import gc
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
from django.db import DEFAULT_DB_ALIAS, OperationalError, connections
from django.test.utils import setup_databases, teardown_databases

from poolhouse.engines import sockets
from poolhouse.engines.connecting import THREAD_NAME
from poolhouse.engines.options import problems
from poolhouse.engines.postgresql.base import DatabaseWrapper
from poolhouse.errors import PoolTimeoutError
from poolhouse.measures import meter
from poolhouse.process.pools import pool_states
from tests.conftest import DEADLINE_S, Stopwatch
from tests.integration.conftest import await_that, frozen
from tests.integration.test_engine import (
    OURS,
    MakePool,
    _database,
    ask,
    borrowed,
    ours_alone,
    pid_of,
    pool,
    pool_of,
)
from tests.integration.test_pool_state import driver
from tests.plugin import superuser_sql

__all__ = ["_database", "pool_of"]


@pytest.fixture
def silence() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=200)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def other_database() -> Iterator[str]:
    superuser_sql("CREATE DATABASE elsewhere OWNER poolhouse")
    try:
        yield "elsewhere"
    finally:
        superuser_sql("DROP DATABASE elsewhere WITH (FORCE)")


# Whose connection is it?


@ours_alone
def test_a_connection_is_not_reused_for_another_database(engine: str, pool_of: MakePool) -> None:
    alias = pool_of(engine, POOL_SIZE=2)
    with borrowed(alias) as wrapper:
        first = ask(wrapper, "SELECT current_database()")
    with other_database() as name:
        connections.settings[alias]["NAME"] = name  # as Django's test runner does
        with borrowed(alias) as wrapper:
            assert (first, ask(wrapper, "SELECT current_database()")) == (first, name) != (name, name)
        pool(alias).dispose()


@ours_alone
def test_the_test_runner_uses_the_test_database_despite_earlier_connections(engine: str, pool_of: MakePool) -> None:
    alias = pool_of(engine)
    with other_database() as name:
        wrapper = connections[alias]
        wrapper.settings_dict["NAME"] = name
        own = {"NAME": f"test_{name}", "DEPENDENCIES": []}
        wrapper.settings_dict["TEST"] = {**wrapper.settings_dict["TEST"], **own}
        assert ask(wrapper, "SELECT current_database()") == name
        wrapper.close()
        made = setup_databases(verbosity=0, interactive=False, aliases={alias: False})
        try:
            assert ask(wrapper, "SELECT current_database()") == f"test_{name}"
        finally:
            teardown_databases(made, verbosity=0)
            wrapper.close()
            pool(alias).dispose()


@ours_alone
def test_each_alias_has_its_own_connection_without_a_database(engine: str, pool_of: MakePool) -> None:
    superuser_sql("CREATE ROLE somebody LOGIN PASSWORD 'somebody'")
    users = []
    try:
        for user in (None, "somebody"):
            alias = pool_of(engine)
            if user:
                connections.settings[alias] |= {"USER": user, "PASSWORD": user}
            with connections[alias]._nodb_cursor() as cursor:
                cursor.execute("SELECT current_user")
                users.append(cursor.fetchone()[0])
        assert users == [connections[DEFAULT_DB_ALIAS].settings_dict["USER"], "somebody"]
    finally:
        from dj_db_conn_pool.core import pool_container

        if pool_container.has("__no_db__"):
            pool_container.get("__no_db__").dispose()
            del pool_container["__no_db__"]
        superuser_sql("DROP ROLE somebody")


def test_a_changed_password_closes_no_open_connection(pool_of: MakePool) -> None:
    alias = pool_of(OURS)
    pid = pid_of(alias)
    connections.settings[alias]["PASSWORD"] = "of tomorrow"
    assert pid_of(alias) == pid


# Whose turn is it?


@ours_alone
def test_waiters_are_served_before_newcomers(engine: str, pool_of: MakePool) -> None:
    alias = pool_of(engine, POOL_SIZE=2, TIMEOUT=DEADLINE_S)
    turns: Counter[int] = Counter()
    end = time.perf_counter() + 2

    def work(number: int) -> None:
        wrapper = connections.create_connection(alias)
        while time.perf_counter() < end:
            ask(wrapper, "SELECT 1")
            wrapper.close()
            turns[number] += 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert max(turns.values()) < 2 * min(turns.values())


@ours_alone
def test_two_simultaneous_check_ins_wake_two_waiters(engine: str, pool_of: MakePool) -> None:
    patience_s = DEADLINE_S if engine == OURS else 1.5
    alias = pool_of(engine, POOL_SIZE=1, MAX_OVERFLOW=1, TIMEOUT=patience_s + 0.5)
    served = threading.Barrier(3, timeout=patience_s)

    def wait() -> None:
        with borrowed(alias):
            served.wait()  # both hold one at the same time

    with ThreadPoolExecutor(2) as threads:
        for _ in range(10):
            with borrowed(alias), borrowed(alias):
                waiting = [threads.submit(wait) for _ in range(2)]
                if engine == OURS:
                    await_that(lambda: pool(alias).waiting == 2)
                else:
                    time.sleep(0.05)  # it does not tell
            with suppress(threading.BrokenBarrierError):
                served.wait()
            for one in waiting:
                try:
                    one.result()
                except threading.BrokenBarrierError as error:
                    raise AssertionError("one of the two slept on") from error


def test_no_caller_fails_while_connections_are_idle(pool_of: MakePool, silence: int) -> None:
    alias = pool_of(OURS, POOL_SIZE=3, TIMEOUT=DEADLINE_S)
    with borrowed(alias), borrowed(alias):
        pid = pid_of(alias)
    with borrowed(DEFAULT_DB_ALIAS) as other:
        assert ask(other, f"SELECT pg_terminate_backend({pid}, 5000)")
    right = connections.settings[alias]["OPTIONS"]
    connections.settings[alias]["OPTIONS"] = {**right, "sslmode": "verify-full"}  # none can be opened now
    assert len({pid_of(alias) for _ in range(6)}) == 2
    connections.settings[alias]["OPTIONS"] = right
    assert pool(alias).checkedin() == pool(alias).open == 2


# How long does it take, and how many are there?


def test_connection_attempts_are_bounded_and_reported(pool_of: MakePool, silence: int) -> None:
    alias = pool_of(OURS, POOL_SIZE=2, MAX_OVERFLOW=1, TIMEOUT=0.2)
    connections.settings[alias]["PORT"] = silence
    connections.settings[alias]["OPTIONS"].pop("connect_timeout", None)  # the engine has one for who has none
    texts: list[str] = []
    most = 0

    def ask_again_and_again() -> None:
        for _ in range(4):
            with pytest.raises(PoolTimeoutError) as raised, borrowed(alias):
                pass
            texts.append(str(raised.value))

    with ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(ask_again_and_again) for _ in range(6)]
        while not all(one.done() for one in asked):
            attempts = [thread for thread in threading.enumerate() if thread.name == THREAD_NAME and thread.is_alive()]
            most = max(most, len(attempts))
            time.sleep(0.01)
    for one in asked:
        one.result()
    assert most == 3
    assert any(
        "all connections are in use or being opened; size 2, overflow 1, in use 0, being opened 3" in text
        for text in texts
    )
    await_that(lambda: pool(alias).checkedout() == 0)  # libpq gives up after 2 s
    assert pool(alias).meter.read()["counts"]["connect_errors"] >= 3


def test_a_connection_opened_too_late_goes_to_the_next_caller(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=1, TIMEOUT=0.3)
    wrapper = connections.create_connection(alias)
    assert isinstance(wrapper, DatabaseWrapper)
    go_on, connect = threading.Event(), wrapper._get_new_connection

    def slowly(params: dict[str, Any]) -> Any:
        assert go_on.wait(DEADLINE_S)
        return connect(params)

    wrapper._get_new_connection = slowly
    with pytest.raises(PoolTimeoutError):
        wrapper.ensure_connection()
    go_on.set()
    await_that(lambda: pool(alias).checkedin() == 1)
    assert pid_of(alias)
    assert pool(alias).meter.read()["counts"]["connects"] == 1


def test_abandoned_connections_are_recovered_for_waiters(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=2, TIMEOUT=2 * DEADLINE_S)
    pids: list[int] = []

    def forget() -> None:
        wrapper = connections.create_connection(alias)
        wrapper.set_autocommit(False)
        pids.append(ask(wrapper, "SELECT pg_backend_pid()"))

    for _ in range(2):
        thread = threading.Thread(target=forget)
        thread.start()
        thread.join()
    with frozen(pids[0]), frozen(pids[1]):  # they would not answer to a ROLLBACK
        assert pid_of(alias) not in pids


def test_opening_min_size_does_not_block_the_background_thread(pool_of: MakePool, silence: int) -> None:
    alias = pool_of(OURS, MIN_SIZE=2, TIMEOUT=5)
    wrapper = connections.create_connection(alias)
    assert isinstance(wrapper, DatabaseWrapper)
    wrapper.settings_dict["PORT"] = silence
    for attempts in (1, 2):
        with pytest.raises(OperationalError, match=r"connecting took more than 0\.10 s"):
            wrapper.keep_warm(within_s=0.1)
        assert pool(alias).checkedout() == attempts
    wrapper.keep_warm(within_s=0.1)  # both are on their way


# Is it what it was, when it is returned in trouble?


class Interruption(BaseException):
    """The exception of a greenlet's timeout, or of a worker's hard limit."""


def test_an_interrupted_check_in_leaves_nothing_behind(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=1, TIMEOUT=DEADLINE_S)
    wrapper = connections.create_connection(alias)
    wrapper.set_autocommit(False)
    pid = ask(wrapper, "SELECT pg_backend_pid()")
    ask(wrapper, "SELECT set_config('work_mem', '7MB', false)")

    def interrupt(*_: Any) -> None:
        raise Interruption

    def interrupt_and_thaw() -> None:
        os.kill(os.getpid(), signal.SIGALRM)
        os.kill(pid, signal.SIGCONT)  # psycopg2 heeds signals when it has an answer

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with frozen(pid):  # the ROLLBACK is not answered
            threading.Timer(1, interrupt_and_thaw).start()
            with pytest.raises(Interruption):
                wrapper.close()
    finally:
        signal.signal(signal.SIGALRM, before)
    with borrowed(alias) as following:
        assert ask(following, "SELECT current_setting('work_mem') = '7MB'") is False
        assert ask(following, "SELECT pg_backend_pid()") != pid
    assert (pool(alias).leases(), pool(alias).checkedout()) == ([], 0)


def test_a_failing_listener_does_not_break_the_pool(pool_of: MakePool, caplog: pytest.LogCaptureFixture) -> None:
    def fail(alias: str, what: str, seconds: float) -> None:
        raise ZeroDivisionError

    alias = pool_of(OURS, POOL_SIZE=1)
    meter.listen(fail)
    try:
        with borrowed(alias) as wrapper:
            ask(wrapper, "SELECT set_config('work_mem', '7MB', false)")
            pid = ask(wrapper, "SELECT pg_backend_pid()")
    finally:
        meter._listeners.remove(fail)
    assert {record.getMessage() for record in caplog.records} == {
        f"{alias}: a listener for pool durations raised an error"
    }
    with borrowed(alias) as wrapper:
        assert ask(wrapper, "SELECT current_setting('work_mem') = '7MB'") is False
        assert ask(wrapper, "SELECT pg_backend_pid()") == pid


def test_an_abandoned_generator_blocks_no_caller(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=1, TIMEOUT=DEADLINE_S)
    with Stopwatch() as returning, borrowed(alias) as wrapper:
        cursor = wrapper.cursor()
        if driver() == "psycopg2":  # the like: an answer that has not been taken
            wrapper.connection.get_transaction_status()
            kept: Any = None
        else:
            kept = cursor.stream("SELECT generate_series(1, 100000)")
            next(kept)
    assert returning.s < DEADLINE_S, "it waited for as long as it may"
    assert pid_of(alias)
    del kept


@ours_alone
def test_a_pool_closed_while_in_use_keeps_its_limit(engine: str, pool_of: MakePool) -> None:
    alias = pool_of(engine, TIMEOUT=DEADLINE_S)
    with borrowed(alias) as first, borrowed(alias):
        pid = ask(first, "SELECT pg_backend_pid()")
        pool(alias).dispose()
        pool(alias)._timeout = 0.2
        refused = False
        try:
            with borrowed(alias):
                pass
        except OperationalError:
            refused = True
        assert refused
    pool(alias)._timeout = DEADLINE_S  # for connecting
    with borrowed(alias) as first, borrowed(alias) as second:
        assert pid not in (ask(first, "SELECT pg_backend_pid()"), ask(second, "SELECT pg_backend_pid()"))


def test_the_garbage_collector_waits_for_no_lock(pool_of: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Collect garbage where a thread holds the meter's lock, while another drops connections that the server closed."""
    alias = pool_of(OURS, POOL_SIZE=3)
    wrapper = connections.create_connection(alias)
    wrapper.ensure_connection()
    wrapper.me = wrapper  # type: ignore[attr-defined]  # so that it waits for the collector
    del wrapper
    made = pool(alias)
    with made.meter._lock, made._permits._lock, ThreadPoolExecutor(1) as threads:
        threads.submit(gc.collect).result(timeout=DEADLINE_S)
    assert made.leases() == []
    assert made.checkedin() == 1


def test_sqlalchemy_s_pool_statistics_are_available(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=2, MAX_OVERFLOW=1)
    with borrowed(alias), borrowed(alias), borrowed(alias):
        made = pool(alias)
        assert (made.size(), made.checkedin(), made.checkedout(), made.overflow()) == (2, 0, 3, 1)
    assert (made.size(), made.checkedin(), made.checkedout(), made.overflow()) == (2, 2, 0, 0)
    assert made.status().startswith("Pool size: 2  Connections in pool: 2")
    (state,) = (state for state in pool_states() if state.alias == alias)
    assert (state.in_use, state.idle, state.overflow, state.waiting) == (0, 2, 0, 0)


def test_the_permit_of_a_lost_slot_is_released(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=1, TIMEOUT=DEADLINE_S)
    pid_of(alias)
    slot = pool(alias)._permits.take()  # a signal's exception comes now, and it is gone
    assert pool(alias).checkedout() == 1
    del slot
    gc.collect()
    assert pid_of(alias)
    assert pool(alias).open == 1


def test_only_a_ping_with_its_full_time_marks_the_network_as_broken(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=2, PRE_PING=True, PING_IDLE_S=0, TIMEOUT=2)
    with borrowed(alias), borrowed(alias):
        pass
    made = pool(alias)
    slots = made._permits.idle_ones()
    with frozen(slots[0].connection.info.backend_pid):
        assert made._answers(slots[0], time.perf_counter() + 0.1) is False
    assert made._generation == 0, "a server that is slow for an instant is not away"
    with frozen(slots[1].connection.info.backend_pid):
        assert made._answers(slots[1], time.perf_counter() + DEADLINE_S) is False
    assert made._generation == 1


def test_a_late_watchdog_closes_no_other_connection(pool_of: MakePool) -> None:
    alias = pool_of(OURS)
    for _ in range(200):
        with borrowed(alias) as wrapper:
            try:
                with sockets.severed_after(wrapper.connection.raw, 0.001):
                    time.sleep(0.001)  # over in the same moment
            except sockets.SeveredError:
                continue
            assert ask(wrapper, "SELECT 1") == 1


def test_a_timeout_of_zero_is_rejected() -> None:
    assert problems({"TIMEOUT": 0}) == ["TIMEOUT: expected a number greater than 0, got 0"]
    assert problems({"TIMEOUT": 0.01}) == []
