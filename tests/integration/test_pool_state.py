"""Session state does not reach the next holder: not on the server, in the driver or through a cursor."""

import gc
import sys
import weakref
from collections.abc import Callable
from importlib import import_module
from io import StringIO
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.db import DEFAULT_DB_ALIAS, InterfaceError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import RequestFactory

from poolhouse.engines.state import leaves_state
from poolhouse.helpers import get_connection_info
from poolhouse.tracing.work import Work, doing
from tests.integration.test_engine import (
    OURS,
    PLAIN,
    MakePool,
    _database,
    ask,
    borrowed,
    ours_alone,
    pool,
    pool_of,
)

__all__ = ["_database", "pool_of"]

Leave = Callable[[BaseDatabaseWrapper], Any]

# Under psycopg 3 the plain engine does not: its rollback looks at what the server says.
swallows = pytest.mark.xfail(not sys.modules.get("psycopg"), raises=AssertionError, reason="psycopg2")


def driver() -> str:
    name: str = connections[DEFAULT_DB_ALIAS].Database.__name__  # type: ignore[attr-defined]  # PostgreSQL's has it
    return name


def run(wrapper: BaseDatabaseWrapper, *statements: str) -> None:
    with wrapper.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def call(name: str, *arguments: Any) -> Leave:
    def leave(wrapper: BaseDatabaseWrapper) -> None:
        with wrapper.cursor() as cursor:
            cursor.callproc(name, arguments)

    return leave


def by_raw_cursor(wrapper: BaseDatabaseWrapper) -> None:
    with wrapper.connection.cursor() as cursor:
        cursor.execute("SET work_mem = '7MB'")


def by_inner_cursor(wrapper: BaseDatabaseWrapper) -> None:
    with wrapper.cursor() as cursor:
        cursor.cursor.execute("SET work_mem = '7MB'")


def by_many(wrapper: BaseDatabaseWrapper) -> None:
    with wrapper.cursor() as cursor:
        cursor.executemany("SELECT set_config(%s, '7MB', false)", [("work_mem",)])


def by_bytes(wrapper: BaseDatabaseWrapper) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute(b"SET work_mem = '7MB'")  # type: ignore[arg-type]  # both drivers take it


def by_parts(wrapper: BaseDatabaseWrapper) -> None:
    sql = import_module(f"{driver()}.sql")
    with wrapper.cursor() as cursor:
        cursor.execute(sql.SQL("SET {} = '7MB'").format(sql.Identifier("work_mem")))


def by_copy(wrapper: BaseDatabaseWrapper) -> None:
    sql = "COPY (SELECT set_config('work_mem', '7MB', false)) TO STDOUT"
    with wrapper.cursor() as cursor:
        if driver() == "psycopg2":
            cursor.copy_expert(sql, StringIO())
        else:
            with cursor.copy(sql) as copy:
                assert list(copy)


def by_driver(wrapper: BaseDatabaseWrapper) -> None:
    with wrapper.connection.driver_connection.cursor() as cursor:
        cursor.execute("SET work_mem = '7MB'")


HAS_WORK_MEM = "SELECT current_setting('work_mem') = '7MB'"
HAS_LOCK = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 42)"
HAS_TABLE = "SELECT to_regclass('pg_temp.left_behind') IS NOT NULL"
IN_TRANSACTION = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL"


@ours_alone
@pytest.mark.parametrize(
    ("leave", "question"),
    [
        (by_raw_cursor, HAS_WORK_MEM),
        (by_inner_cursor, HAS_WORK_MEM),
        (by_many, HAS_WORK_MEM),
        (by_bytes, HAS_WORK_MEM),
        (by_parts, HAS_WORK_MEM),
        (by_copy, HAS_WORK_MEM),
        (by_driver, HAS_WORK_MEM),
        (lambda wrapper: run(wrapper, "SET/**/work_mem = '7MB'"), HAS_WORK_MEM),
        (lambda wrapper: run(wrapper, "/* a /* b */ c */ SET work_mem = '7MB'"), HAS_WORK_MEM),
        (
            lambda wrapper: run(wrapper, "SET local.left_behind = '1'"),
            "SELECT coalesce(current_setting('local.left_behind', true), '') = '1'",
        ),
        (
            lambda wrapper: run(wrapper, "PREPARE transaction AS SELECT 1"),
            "SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'transaction')",
        ),
        (lambda wrapper: run(wrapper, "CREATE TABLE pg_temp.left_behind (id int)"), HAS_TABLE),
        (
            lambda wrapper: run(wrapper, "DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1"),
            "SELECT EXISTS (SELECT FROM pg_cursors)",
        ),
    ],
)
def test_session_state_of_every_kind_is_reset(engine: str, pool_of: MakePool, leave: Leave, question: str) -> None:
    alias = pool_of(engine, POOL_SIZE=1)
    with borrowed(alias) as wrapper:
        leave(wrapper)
        assert ask(wrapper, question) is True
        pid = wrapper.connection.info.backend_pid
    with borrowed(alias) as wrapper:
        assert ask(wrapper, question) is False
        assert wrapper.connection.info.backend_pid == pid


@ours_alone
@pytest.mark.parametrize(
    ("leave", "question"),
    [
        (call("set_config", "work_mem", "7MB", False), HAS_WORK_MEM),
        (call("pg_advisory_lock", 42), HAS_LOCK),
    ],
)
def test_session_state_of_a_procedure_is_reset(engine: str, pool_of: MakePool, leave: Leave, question: str) -> None:
    test_session_state_of_every_kind_is_reset(engine, pool_of, leave, question)


def test_a_transaction_begun_by_a_statement_ends_at_check_in(pool_of: MakePool) -> None:
    by_statement: Leave = lambda wrapper: run(wrapper, "BEGIN", "CREATE TABLE left_behind (id int)")  # noqa: E731
    test_session_state_of_every_kind_is_reset(OURS, pool_of, by_statement, IN_TRANSACTION)


@pytest.mark.parametrize("engine", [OURS, pytest.param(PLAIN, marks=swallows)])
def test_a_transaction_begun_by_a_statement_does_not_swallow_later_writes(engine: str, pool_of: MakePool) -> None:
    alias = pool_of(engine, POOL_SIZE=1)
    with borrowed(alias) as wrapper:
        run(wrapper, "CREATE TABLE IF NOT EXISTS swallowed (id int)", "TRUNCATE swallowed")
    with borrowed(alias) as wrapper:
        run(wrapper, "BEGIN", "INSERT INTO swallowed VALUES (1)")
    with borrowed(alias) as wrapper:
        run(wrapper, "INSERT INTO swallowed VALUES (2)")
    pool(alias).dispose()
    with borrowed(alias) as wrapper:
        assert ask(wrapper, "SELECT array_agg(id) FROM swallowed") == [2]
        run(wrapper, "DROP TABLE swallowed")


def set_on(name: str, value: Any) -> Leave:
    return lambda wrapper: setattr(wrapper.connection.driver_connection, name, value)


SETTABLE = {
    "psycopg2": {
        "readonly": set_on("readonly", True),
        "deferrable": set_on("deferrable", True),
        "isolation_level": lambda wrapper: wrapper.connection.set_isolation_level(3),
        "cursor_factory": set_on("cursor_factory", None),
    },
    "psycopg": {
        "read_only": set_on("read_only", True),
        "deferrable": set_on("deferrable", True),
        "isolation_level": set_on("isolation_level", 3),
        "row_factory": set_on("row_factory", lambda cursor: tuple),
        "prepare_threshold": set_on("prepare_threshold", 0),
    },
}


@pytest.mark.parametrize("number", range(5))
def test_attributes_of_the_driver_s_connection_are_restored(pool_of: MakePool, number: int) -> None:
    name, leave = (list(SETTABLE[driver()].items()) * 2)[number]
    alias = pool_of(OURS, POOL_SIZE=1)
    with borrowed(alias) as wrapper:
        wrapper.set_autocommit(False)  # psycopg2 hides some of them behind it
        before, pid = getattr(wrapper.connection.driver_connection, name), wrapper.connection.info.backend_pid
        leave(wrapper)
        assert getattr(wrapper.connection.driver_connection, name) != before
    with borrowed(alias) as wrapper:
        wrapper.set_autocommit(False)
        assert getattr(wrapper.connection.driver_connection, name) == before
        assert wrapper.connection.info.backend_pid == pid
        wrapper.set_autocommit(True)


def test_notices_and_notifications_do_not_reach_the_next_holder(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=1)
    with borrowed(alias) as wrapper:
        run(wrapper, "LISTEN private", "NOTIFY private, 'private'", "SELECT 1")
        run(wrapper, "DO $$ BEGIN RAISE NOTICE 'private'; END $$")
    with borrowed(alias) as wrapper:
        ask(wrapper, "SELECT 1")
        if driver() == "psycopg2":
            assert (wrapper.connection.notices, wrapper.connection.notifies) == ([], [])
        else:
            assert list(wrapper.connection.notifies(timeout=0)) == []


def test_a_kept_cursor_cannot_run_after_check_in(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=1)
    with borrowed(alias) as wrapper:
        kept = wrapper.cursor()
        kept.execute("SELECT 1")
    with borrowed(alias) as wrapper:
        refusal = ""
        try:
            kept.execute("SELECT 1")
        except InterfaceError as error:
            refusal = str(error)
        assert refusal.startswith("cursor already closed")
        assert ask(wrapper, "SELECT 1") == 1


def test_a_kept_cursor_cannot_copy_after_check_in(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=1)
    with borrowed(alias) as wrapper:
        kept = wrapper.cursor().cursor  # the driver's
    sql, refusal = "COPY (SELECT 1) TO STDOUT", "cursor already closed"
    if driver() == "psycopg2":
        with pytest.raises(InterfaceError, match=refusal):
            kept.copy_expert(sql, StringIO())
        with pytest.raises(InterfaceError, match=refusal):
            kept.copy_to(StringIO(), "pg_class")
        with pytest.raises(InterfaceError, match=refusal):
            kept.copy_from(StringIO(), "pg_class")
    else:
        with pytest.raises(InterfaceError, match=refusal), kept.copy(sql):
            pass


def test_an_ordinary_copy_causes_no_reset(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=1)
    with borrowed(alias) as wrapper, wrapper.cursor() as cursor:
        sql = "COPY (SELECT 'SET work_mem') TO STDOUT"
        if driver() == "psycopg2":
            cursor.copy_expert(sql, StringIO())
        else:
            with cursor.copy(sql) as copy:
                assert list(copy)
    assert pool(alias).meter.read()["counts"]["resets"] == 0


def test_a_server_side_cursor_ends_with_its_lease(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=1)
    with borrowed(alias) as wrapper:
        kept = wrapper.chunked_cursor()
        kept.execute("SELECT generate_series(1, 1000)")
        assert len(kept.fetchmany(2)) == 2
        assert ask(wrapper, "SELECT count(*) FROM pg_cursors WHERE is_holdable") == 1
    with borrowed(alias) as wrapper:
        assert ask(wrapper, "SELECT count(*) FROM pg_cursors WHERE is_holdable") == 0
        with pytest.raises(InterfaceError):
            kept.fetchmany(2)
        assert ask(wrapper, "SELECT 1") == 1


def test_usual_work_causes_no_reset(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=1)
    with borrowed(alias) as wrapper:
        run(wrapper, "CREATE TABLE IF NOT EXISTS temperature_log (id int)", "INSERT INTO temperature_log VALUES (1)")
        wrapper.set_autocommit(False)
        run(wrapper, "SELECT id FROM temperature_log FOR UPDATE")
        wrapper.commit()
        wrapper.set_autocommit(True)
        run(wrapper, "DROP TABLE temperature_log")
        lease = wrapper.connection.lease
        assert (lease.leaves_state, lease.is_touched, lease.named_cursors) == (False, False, ())
    assert pool(alias).meter.read()["counts"]["resets"] == 0


@pytest.mark.parametrize(
    ("sql", "leaves"),
    [
        ("INSERT INTO temperature_log VALUES (1)", False),
        ("INSERT INTO temp VALUES (1)", False),
        ("UPDATE t SET a = 1", False),
        ("SET LOCAL work_mem = 1", False),
        ("SET TRANSACTION READ ONLY", False),
        ("PREPARE TRANSACTION 'a'", False),
        ("SELECT '/*', set_config('a', 'b', false), '*/'", True),
        ("SELECT '--' ; SET a = 1", True),
        ('SET"work_mem"=1', True),
        ("CREATE TEMPORARY VIEW a AS SELECT 1", True),
        ("SELECT 1 INTO TEMPORARY TABLE a", True),
        ('CREATE TABLE "pg_temp".a ()', True),
        ("-- why\nLISTEN a", True),
    ],
)
def test_session_state_is_detected_in_the_statement_s_text(sql: str, leaves: bool) -> None:
    assert leaves_state(sql) is leaves


def test_closing_in_an_atomic_block_is_an_error(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=1)
    wrapper = connections[alias]

    def close_and_ask() -> None:
        with transaction.atomic(alias):
            ask(wrapper, "SELECT 1")
            wrapper.close()
            assert repr(wrapper)
            ask(wrapper, "SELECT 1")

    with pytest.raises(InterfaceError, match="connection already closed"):
        close_and_ask()
    assert ask(wrapper, "SELECT 1") == 1


def test_a_connection_closed_in_an_atomic_block_is_not_open(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=1)
    with transaction.atomic(alias):
        ask(connections[alias], "SELECT 1")
        assert get_connection_info(alias).is_open
        connections[alias].close()
        assert not get_connection_info(alias).is_open


def test_reading_attributes_of_a_connection_causes_no_reset(pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=1)
    ask(connections[alias], "SELECT 1")
    assert get_connection_info(alias).is_open
    connections[alias].close()
    assert pool(alias).meter.read()["counts"]["resets"] == 0


def test_a_checked_in_connection_keeps_no_request_alive(pool_of: MakePool) -> None:
    class Served(Work):
        __slots__ = ("__weakref__", "request")

        def serve(self, request: WSGIRequest) -> None:
            self.request = request

    alias = pool_of(OURS)
    wrapper = connections[alias]
    work = Served("request", "GET /")
    work.serve(RequestFactory().get("/"))
    with doing(work):
        kept = wrapper.cursor()
        kept.execute("SELECT 1")
        wrapper.close()
    served = weakref.ref(work)
    del work
    gc.collect()
    assert served() is None
