"""The sources of the status: the store, and the pools of a process."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, connections
from pytest_django import Settings

from config.env import Queue, read
from poolhouse.conf import options
from poolhouse.overview.status import take_status
from poolhouse.process import pools
from poolhouse.reports.report import ProcessReport
from poolhouse.reports.store import ReportStore
from sandbox.servers import Place

pytestmark = pytest.mark.django_db


@pytest.fixture
def store(servers: Place) -> ReportStore:
    return ReportStore(read(Queue).url, prefix=f"test-{time.monotonic_ns()}", ttl_s=0.2, timeout_s=2)


def report(pid: int) -> ProcessReport:
    return ProcessReport(f"web@box:{pid}", "web", "box", pid, 1.0, 2.0, ())


def test_reports_are_read_until_they_are_withdrawn(store: ReportStore) -> None:
    store.publish(report(2))
    store.publish(report(1))
    assert store.read_all() == [report(1), report(2)]
    store.withdraw("web@box:2")
    assert store.read_all() == [report(1)]


def test_a_process_that_stops_reporting_disappears_by_itself(store: ReportStore) -> None:
    store.publish(report(1))
    client = redis.Redis.from_url(read(Queue).url)
    assert 0 < client.pttl(store._key("web@box:1")) <= 200
    deadline = time.monotonic() + 5
    while store.read_all() and time.monotonic() < deadline:
        time.sleep(0.02)
    client.close()
    assert store.read_all() == []


def test_the_standard_backend_s_connections_are_counted_over_all_threads() -> None:
    connection.ensure_connection()
    together = threading.Barrier(4)

    def hold() -> None:
        connection.ensure_connection()  # each thread's own
        together.wait()
        together.wait()
        connection.close()

    with ThreadPoolExecutor(3) as threads:
        held = [threads.submit(hold) for _ in range(3)]
        together.wait()
        (state,) = pools.pool_states()
        together.wait()
        assert [future.result() for future in held] == [None] * 3
    assert (state.kind, state.engine, state.in_use) == ("per-thread", "django.db.backends.postgresql", 4)


def test_a_source_that_is_away_is_named_and_the_other_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.ensure_connection()
    monkeypatch.setitem(connections.settings["default"], "PORT", "1")
    monkeypatch.setattr("poolhouse.overview.status.store", lambda: None)
    status = take_status()
    assert status.server is None
    assert [source.source for source in status.unreachable] == ["process reports", "database server (default)"]
    assert "refused" in status.unreachable[1].reason


def test_settings_that_make_no_sense_are_refused(settings: Settings) -> None:
    options.cache_clear()
    try:
        for given, problem in (
            ({"SERVCE": "web"}, r"unknown keys \['SERVCE'\]; allowed: "),
            ({"REPORT_TTL_S": 1.0, "PUBLISH_INTERVAL_S": 2.0}, "REPORT_TTL_S=1.0 must be more than"),
            ({"MONITOR_TIMEOUT_S": 0}, "MONITOR_TIMEOUT_S=0 must be 1 or more"),
        ):
            settings.POOLHOUSE = given
            with pytest.raises(ImproperlyConfigured, match=problem):
                options()
    finally:
        options.cache_clear()
