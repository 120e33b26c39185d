"""The pooled engine, beside the plain one of dj_db_conn_pool: each trap of the plain one is shown to be there.

A test that is marked for the plain engine must fail there; should a later version of it pass, the mark is taken away.
"""

import gc
import json
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy.exc
from django.db import DEFAULT_DB_ALIAS, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from poolhouse.engines.options import problems
from poolhouse.engines.pool import LendingPool
from poolhouse.engines.postgresql.base import DatabaseWrapper
from poolhouse.errors import PoolTimeoutError
from tests.conftest import DEADLINE_S, Stopwatch, await_that
from tests.integration.void import Way

OURS = "poolhouse.engines.postgresql"
PLAIN = "dj_db_conn_pool.backends.postgresql"
TRAPS = (AssertionError, OperationalError, sqlalchemy.exc.TimeoutError)
both = pytest.mark.parametrize("engine", [OURS, PLAIN])
ours_alone = pytest.mark.parametrize(
    "engine", [OURS, pytest.param(PLAIN, marks=pytest.mark.xfail(strict=True, raises=TRAPS))]
)

MakePool = Callable[..., str]


@pytest.fixture(autouse=True)
def _database(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The test database, with more aliases than Django's test cases allow."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def pool_of() -> Iterator[MakePool]:
    """Return an alias of the test database with a pool of its own."""
    from dj_db_conn_pool.core import pool_container

    made: list[str] = []

    def make(engine: str, **pool_options: Any) -> str:
        alias = f"pooled{len(made)}"
        template = connections[DEFAULT_DB_ALIAS].settings_dict
        connections.settings[alias] = {
            **template,
            "ENGINE": engine,
            "CONN_MAX_AGE": 0,
            "OPTIONS": {**template["OPTIONS"], "application_name": alias, "pool": None},
            "POOL_OPTIONS": {"POOL_SIZE": 2, "MAX_OVERFLOW": 0, "TIMEOUT": 5, "PRE_PING": False, **pool_options},
        }
        made.append(alias)
        return alias

    yield make
    for alias in made:
        connections[alias].close()
        if pool_container.has(alias):
            pool_container.get(alias).dispose()
            del pool_container[alias]
        del connections[alias]
        del connections.settings[alias]


@contextmanager
def borrowed(alias: str) -> Iterator[BaseDatabaseWrapper]:
    """Hold a connection for a block, as a thread does that serves a request."""
    wrapper = connections.create_connection(alias)
    try:
        wrapper.ensure_connection()
        yield wrapper
    finally:
        wrapper.close()


def ask(wrapper: BaseDatabaseWrapper, question: str) -> Any:
    with wrapper.cursor() as cursor:
        cursor.execute(question)
        return cursor.fetchone()[0]


def pid_of(alias: str) -> int:
    with borrowed(alias) as wrapper:
        return int(ask(wrapper, "SELECT pg_backend_pid()"))


def warm_up_alias(alias: str) -> None:
    wrapper = connections.create_connection(alias)
    assert isinstance(wrapper, DatabaseWrapper)
    wrapper.keep_warm()


def pool(alias: str) -> LendingPool:
    from dj_db_conn_pool.core import pool_container

    found: LendingPool = pool_container.get(alias)
    return found


@both
def test_a_connection_is_reused_after_check_in(engine: str, pool_of: MakePool) -> None:
    alias = pool_of(engine)
    assert pid_of(alias) == pid_of(alias)


def test_wait_and_hold_times_are_added_up(pool_of: MakePool) -> None:
    alias = pool_of(OURS)
    for wrapper in [connections.create_connection(alias) for _ in range(2)]:
        wrapper.ensure_connection()  # so that connecting is no part of what is measured
        wrapper.close()
    before = pool(alias).meter.read()

    def work(_: int) -> float:
        with Stopwatch() as all_of_it, borrowed(alias) as wrapper:
            ask(wrapper, "SELECT pg_sleep(0.2)::text")
        return all_of_it.s

    with ThreadPoolExecutor(6) as threads:
        with Stopwatch() as holding_both, borrowed(alias), borrowed(alias):
            working = [threads.submit(work, number) for number in range(6)]
            await_that(lambda: pool(alias).waiting == 6)
            time.sleep(0.2)
        spans_s = [2 * holding_both.s, *(one.result() for one in working)]
    after = pool(alias).meter.read()
    waited_s = after["wait"].total_s - before["wait"].total_s
    held_s = after["hold"].total_s - before["hold"].total_s
    # Two at a time: waits of 0.2, 0.4 and 0.6 s. The server may wake a millisecond early.
    assert held_s >= 2 * 0.2 + 6 * 0.199
    assert waited_s >= 2 * (0.199 + 0.398 + 0.597)
    assert waited_s + held_s <= sum(spans_s)
    assert after["wait"].count - before["wait"].count == after["hold"].count - before["hold"].count == 8
    assert after["counts"]["connects"] == after["connect"].count


@ours_alone
def test_a_pool_timeout_is_an_operational_error_that_names_the_holder(engine: str, pool_of: MakePool) -> None:
    alias = pool_of(engine, TIMEOUT=DEADLINE_S)
    with borrowed(alias), borrowed(alias):
        pool(alias)._timeout = 0.3
        with pytest.raises(OperationalError) as raised, borrowed(alias):
            pass
    text = str(raised.value)
    assert isinstance(raised.value, PoolTimeoutError)
    (waited_s,) = re.findall(rf"{alias}: no connection within (\d+\.\d+) s", text)
    assert float(waited_s) >= 0.3
    assert "size 2, overflow 0, in use 2, waiting 1" in text
    (held_s,) = re.findall(rf"longest held: (\d+\.\d+) s by thread {threading.current_thread().name}", text)
    assert float(held_s) >= 0.3
    assert pool(alias).meter.read()["counts"]["timeouts"] == 1


@ours_alone
def test_a_failed_connect_wakes_a_waiter(engine: str, pool_of: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    timeout_s = DEADLINE_S if engine == OURS else 3
    alias = pool_of(engine, POOL_SIZE=1, TIMEOUT=timeout_s)
    database: Any = connections[alias].Database  # type: ignore[attr-defined]  # PostgreSQL's has it
    holder_began, fail = threading.Event(), threading.Event()

    def connect_slowly(*args: Any, **kwargs: Any) -> Any:
        holder_began.set()
        assert fail.wait(DEADLINE_S)
        raise database.OperationalError("the server is away")

    def fails() -> None:
        wrapper = connections.create_connection(alias)
        monkeypatch.setattr(database, "connect", connect_slowly)
        with pytest.raises(OperationalError):
            wrapper.ensure_connection()

    def waits() -> float:
        assert holder_began.wait(DEADLINE_S)
        monkeypatch.undo()
        begun_at = time.perf_counter()
        threading.Timer(0.2, fail.set).start()
        with borrowed(alias):
            return time.perf_counter() - begun_at

    with ThreadPoolExecutor(2) as threads:
        failing, waiting = threads.submit(fails), threads.submit(waits)
        failing.result()
        assert waiting.result() < timeout_s, "it slept until its own timeout"


@ours_alone
def test_connections_closed_by_the_server_are_replaced_without_a_ping(engine: str, pool_of: MakePool) -> None:
    alias = pool_of(engine, PRE_PING=False)
    pid = pid_of(alias)
    with borrowed(DEFAULT_DB_ALIAS) as other:
        assert ask(other, f"SELECT pg_terminate_backend({pid}, 5000)")
    assert pid_of(alias) != pid
    assert pool(alias).meter.read()["counts"]["invalidated"] == 1


def test_only_idle_connections_are_pinged(pool_of: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    from poolhouse.engines import sockets

    pings = []
    is_alive = sockets.is_alive

    def counted(connection: Any, timeout_s: float) -> bool:
        pings.append(connection)
        return is_alive(connection, timeout_s)

    monkeypatch.setattr(sockets, "is_alive", counted)
    fresh = pool_of(OURS, PRE_PING=True, PING_IDLE_S=3600)
    assert pid_of(fresh) == pid_of(fresh)
    assert not pings
    idle = pool_of(OURS, PRE_PING=True, PING_IDLE_S=0.05)
    first = pid_of(idle)
    time.sleep(0.1)  # the time itself is what matters
    assert pid_of(idle) == first
    assert len(pings) == 1


def test_a_connection_is_recycled_at_its_age(pool_of: MakePool) -> None:
    alias = pool_of(OURS, RECYCLE=0)
    assert pid_of(alias) != pid_of(alias)
    assert pool(alias).meter.read()["counts"]["recycled"] == 1


@ours_alone
def test_rotated_credentials_are_used_for_new_connections(engine: str, pool_of: MakePool) -> None:
    alias = pool_of(engine)
    with borrowed(alias):
        connections.settings[alias]["OPTIONS"]["application_name"] = "rotated"
        with borrowed(alias) as second:
            assert ask(second, "SELECT current_setting('application_name')") == "rotated"


@ours_alone
@pytest.mark.parametrize(
    ("statement", "question"),
    [
        ("SET work_mem = '7MB'", "SELECT current_setting('work_mem') = '7MB'"),
        ("SELECT set_config('work_mem', '7MB', false)", "SELECT current_setting('work_mem') = '7MB'"),
        (
            "SELECT pg_advisory_lock(42)",
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 42)",
        ),
        ("CREATE TEMP TABLE left_behind (id int)", "SELECT to_regclass('pg_temp.left_behind') IS NOT NULL"),
        (
            "/* a comment */ SELECT 1 AS id INTO TEMP left_behind",
            "SELECT to_regclass('pg_temp.left_behind') IS NOT NULL",
        ),
        ("LISTEN to_somebody", "SELECT EXISTS (SELECT FROM pg_listening_channels())"),
        ("PREPARE left_behind AS SELECT 1", "SELECT EXISTS (SELECT FROM pg_prepared_statements)"),
    ],
)
def test_session_state_does_not_reach_the_next_holder(
    engine: str, pool_of: MakePool, statement: str, question: str
) -> None:
    alias = pool_of(engine, POOL_SIZE=1)
    with borrowed(alias) as wrapper:
        with wrapper.cursor() as cursor:
            cursor.execute(statement)
        pid = wrapper.connection.info.backend_pid
        assert ask(wrapper, question) is True
    with borrowed(alias) as wrapper:
        assert ask(wrapper, question) is False
        assert wrapper.connection.info.backend_pid == pid


def test_without_session_state_there_is_no_reset(pool_of: MakePool) -> None:
    alias = pool_of(OURS)
    with borrowed(alias) as wrapper:
        ask(wrapper, "SELECT count(*) FROM pg_class")
        with wrapper.cursor() as cursor:
            cursor.execute("SET LOCAL work_mem = '7MB'")
    assert pool(alias).meter.read()["counts"]["resets"] == 0


def test_with_use_lifo_the_last_connection_in_is_the_first_out(pool_of: MakePool) -> None:
    for lifo in (False, True):
        alias = pool_of(OURS, USE_LIFO=lifo)
        with borrowed(alias) as first, borrowed(alias) as second:
            returned = [ask(wrapper, "SELECT pg_backend_pid()") for wrapper in (second, first)]
        assert pid_of(alias) == returned[-1 if lifo else 0]


def test_min_size_connections_are_kept_open(pool_of: MakePool) -> None:
    alias = pool_of(OURS, MIN_SIZE=2)
    warm_up_alias(alias)
    assert pool(alias).open == 2
    with borrowed(DEFAULT_DB_ALIAS) as other, borrowed(alias) as wrapper:
        ask(other, f"SELECT pg_terminate_backend({ask(wrapper, 'SELECT pg_backend_pid()')}, 5000)::text")
    assert pool(alias).meter.read()["counts"]["invalidated"] == 0
    warm_up_alias(alias)
    assert pool(alias).open == 2
    assert pool(alias).meter.read()["counts"]["invalidated"] == 1


@ours_alone
def test_a_forked_child_leaves_its_parents_sockets_alone(engine: str, pool_of: MakePool) -> None:
    alias = pool_of(engine)
    with borrowed(alias) as wrapper:
        lent = ask(connections[alias], "SELECT pg_backend_pid()")  # this thread's own, as after preloading
        idle = ask(wrapper, "SELECT pg_backend_pid()")
    answer = answer_of_child(lambda: [use_and_drop_everything(alias), ask(connections[alias], BACKEND_PIDS)])
    assert ask(connections[alias], "SELECT pg_backend_pid()") == lent
    with borrowed(alias) as wrapper:
        assert ask(wrapper, "SELECT pg_backend_pid()") == idle
    assert answer[0] not in (lent, idle)
    assert {lent, idle} < set(answer[1])


BACKEND_PIDS = "SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = current_database()"


def use_and_drop_everything(alias: str) -> int:
    """Do in a child what ends connections: check in, close, collect garbage and exit."""
    pid = pid_of(alias)
    connections[alias].close()
    gc.collect()
    weakref.finalize._exitfunc()  # type: ignore[attr-defined]
    return pid


def answer_of_child(do: Callable[[], Any]) -> Any:
    """Run a function in a forked child; return its result."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, json.dumps(do()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    assert text, "the child failed"
    return json.loads(text)


@pytest.fixture
def way() -> Iterator[Way]:
    """A network path to the server on which packets can vanish."""
    made = Way(int(connections[DEFAULT_DB_ALIAS].settings_dict["PORT"]))
    yield made
    made.close()


@ours_alone
@pytest.mark.parametrize("trouble", ["drop", "freeze"])
def test_the_timeout_holds_when_the_server_does_not_answer(
    engine: str, pool_of: MakePool, way: Way, trouble: str
) -> None:
    timeout_s = 2
    alias = pool_of(engine, TIMEOUT=timeout_s, PRE_PING=True, **({"PING_IDLE_S": 0} if engine == OURS else {}))
    connections.settings[alias]["PORT"] = way.port
    with borrowed(alias), borrowed(alias):
        pass
    getattr(way, trouble)()
    refusals: list[Exception] = []
    threads = [threading.Thread(target=note_refusal, args=(alias, refusals), daemon=True) for _ in range(6)]
    deadline = time.monotonic() + (DEADLINE_S if engine == OURS else timeout_s + 1)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        meanwhile = list(refusals)
        way.restore()
        assert len(meanwhile) == 6, "some wait until the way is open again"
        assert {type(error) for error in meanwhile} == {PoolTimeoutError}
        assert pid_of(alias)
    finally:
        way.close()
        for thread in threads:
            thread.join(10)


def note_refusal(alias: str, refusals: list[Exception]) -> None:
    try:
        with borrowed(alias):
            pass
    except Exception as error:  # noqa: BLE001 - the test looks at it
        refusals.append(error)


def test_invalid_options_are_rejected_with_what_is_allowed() -> None:
    assert problems({"POOL_SIZE": 5, "MAX_OVERFLOW": -1, "TIMEOUT": 0.5, "RESET": "always"}) == []
    assert problems({"pool_size": 5}) == ["unknown key 'pool_size'; did you mean POOL_SIZE?"]
    assert problems({"MAX_OVERFLOWS": 5}) == ["unknown key 'MAX_OVERFLOWS'; did you mean MAX_OVERFLOW?"]
    assert problems({"ZZZ": 5})[0].startswith("unknown key 'ZZZ'; allowed: POOL_SIZE, MAX_OVERFLOW, ")
    assert problems({"POOL_SIZE": "5"}) == ["POOL_SIZE: expected a whole number, got '5'"]
    assert problems({"POOL_SIZE": 0}) == ["POOL_SIZE: expected 1 or more, got 0"]
    assert problems({"PRE_PING": 1}) == ["PRE_PING: expected True or False, got 1"]
    assert problems({"RESET": "sometimes"}) == ["RESET: expected one of seen, always, never, got 'sometimes'"]
    assert problems({"MIN_SIZE": 3, "POOL_SIZE": 2}) == ["MIN_SIZE=3 must be POOL_SIZE=2 or less"]
