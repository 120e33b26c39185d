"""Leak suspects: connections that are held too long, logged with the code that checked them out."""

import logging
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from pytest_django import Settings

from poolhouse.conf import options
from poolhouse.engines.postgresql.base import DatabaseWrapper
from poolhouse.process.pools import PoolState, pool_states
from poolhouse.reports.report import ProcessReport
from poolhouse.tracing.work import Work, doing
from tests.integration.test_engine import OURS, MakePool, _database, ask, borrowed, pool, pool_of

__all__ = ["_database", "pool_of"]


@pytest.fixture
def threshold(request: pytest.FixtureRequest, settings: Settings) -> Iterator[None]:
    """Look for connections held longer than 0 s, or than the parameter says."""
    settings.POOLHOUSE = {**settings.POOLHOUSE, "LEAK_THRESHOLD_S": getattr(request, "param", 1e-6)}
    options.cache_clear()
    yield
    options.cache_clear()


def state_of(alias: str) -> PoolState:
    (state,) = (state for state in pool_states() if state.alias == alias)
    return state


def look(alias: str) -> None:
    wrapper = connections[alias]
    assert isinstance(wrapper, DatabaseWrapper)
    wrapper.look_for_leaks()


@pytest.mark.usefixtures("threshold")
def test_a_leak_suspect_is_logged_once_with_file_and_line(pool_of: MakePool, caplog: pytest.LogCaptureFixture) -> None:
    alias = pool_of(OURS)
    with doing(Work("request", "GET /leaks/")), borrowed(alias) as wrapper:
        ask(wrapper, "SELECT 'a secret', 42")
        with caplog.at_level(logging.WARNING, "poolhouse.engines.leaks"):
            look(alias)
            look(alias)
        (suspect,) = state_of(alias).suspects
        (logged,) = [record.getMessage() for record in caplog.records]
    here = Path(__file__).with_name("test_engine.py")
    assert suspect.taken_at.startswith(f"{here}:")
    assert suspect.taken_at.endswith(" in borrowed")
    assert suspect.holder == f"request GET /leaks/ in thread {threading.current_thread().name}"
    assert suspect.last_statement == "SELECT ?, ?"
    assert suspect.taken_at in logged
    assert "secret" not in logged
    assert f'File "{__file__}", line ' in logged  # the whole stack
    assert "wrapper.ensure_connection()" in logged
    assert caplog.records[-1].getMessage().startswith(f"{alias}: leak suspect checked in after ")
    assert state_of(alias).suspects == ()


@pytest.mark.usefixtures("threshold")
def test_a_leak_suspect_shows_any_kind_of_statement(pool_of: MakePool) -> None:
    alias = pool_of(OURS)
    sql = import_module(f"{connections[alias].Database.__name__}.sql")  # type: ignore[attr-defined]  # PostgreSQL's
    statements: tuple[Any, ...] = (b"SELECT 'a secret'", sql.SQL("SELECT {}").format(sql.Literal("a secret")))
    for statement in statements:
        with borrowed(alias) as wrapper, wrapper.cursor() as cursor:
            cursor.execute(statement)
            look(alias)
            (suspect,) = state_of(alias).suspects
        assert suspect.last_statement == "SELECT ?"


@pytest.mark.usefixtures("threshold")
@pytest.mark.parametrize("threshold", [0], indirect=True)
def test_without_a_threshold_no_stack_is_recorded(pool_of: MakePool) -> None:
    alias = pool_of(OURS)
    with borrowed(alias):
        look(alias)
        assert state_of(alias).suspects == ()
        assert [lease.frames for lease in pool(alias).leases()] == [()]


@pytest.mark.usefixtures("threshold")
def test_a_leak_suspect_survives_the_wire(pool_of: MakePool) -> None:
    alias = pool_of(OURS)
    with borrowed(alias):
        pass
    with borrowed(alias):
        look(alias)
        states: Any = tuple(state for state in pool_states() if state.alias == alias)
    report = ProcessReport("web@box:1", "web", "box", 1, 1.0, 2.0, states)
    read = ProcessReport.from_json(report.to_json())
    assert read is not None
    (pool_read,) = read.pools
    assert pool_read.wait is not None
    assert pool_read.counts == states[0].counts
    assert pool_read.suspects == states[0].suspects != ()
    assert pool_read.wait.counts == states[0].wait.counts
    assert read.to_json() == report.to_json()
