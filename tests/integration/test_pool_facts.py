"""The sources of the status: the store, and the pools of a process."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
import redis
from django.db import connection, connections

from config.env import Queue, read
from poolhouse.driver import driver
from poolhouse.overview.status import take_status
from poolhouse.process import pools
from poolhouse.reports.report import WIRE_VERSION, ProcessReport
from poolhouse.reports.store import Reports, ReportStore
from poolhouse.servers.server import monitor_cursor
from sandbox.servers import Place
from tests.conftest import DEADLINE_S, await_that

pytestmark = pytest.mark.django_db


@pytest.fixture
def store(servers: Place) -> Iterator[ReportStore]:
    with closing(_store(ttl_s=600)) as made:
        yield made


@pytest.fixture
def brief_store(servers: Place) -> Iterator[ReportStore]:
    with closing(_store(ttl_s=0.2)) as made:
        yield made


def _store(*, ttl_s: float) -> ReportStore:
    return ReportStore(read(Queue).url, prefix=f"test-{time.monotonic_ns()}", ttl_s=ttl_s, timeout_s=DEADLINE_S)


@pytest.fixture
def client(servers: Place) -> Iterator[redis.Redis]:
    with closing(redis.Redis.from_url(read(Queue).url)) as made:
        yield made


def report(pid: int) -> ProcessReport:
    return ProcessReport(f"web@box:{pid}", "web", "box", pid, 1.0, 2.0, ())


def test_reports_are_read_until_they_are_withdrawn(store: ReportStore) -> None:
    store.publish(report(2))
    store.publish(report(1))
    assert store.read_all() == Reports([report(1), report(2)], of_other_versions=0)
    store.withdraw(report(2).key)
    assert store.read_all().live == [report(1)]


def test_processes_with_one_name_report_and_end_independently(store: ReportStore) -> None:
    one, other = replace(report(1), run="a"), replace(report(1), run="b", started_at=1.5)
    store.publish(one)
    store.publish(other)
    assert store.read_all().live == [one, other]
    store.withdraw(one.key)
    assert store.read_all().live == [other]


def test_a_process_with_a_wrong_clock_removes_no_other_report(
    store: ReportStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish(report(1))
    now = time.time()
    for pid, hours in ((2, 24), (3, -24)):
        monkeypatch.setattr("time.time", lambda hours=hours: now + hours * 3600)
        store.publish(report(pid))
    assert store.read_all().live == [report(1), report(2), report(3)]


def test_a_killed_process_disappears_from_the_index(brief_store: ReportStore, client: redis.Redis) -> None:
    brief_store.publish(report(1))
    await_that(lambda: brief_store.read_all().live == [])
    brief_store.publish(report(2))
    assert client.zrange(brief_store._index, 0, -1) == [report(2).key.encode()]


def test_reports_of_other_versions_are_counted_and_hide_nothing(store: ReportStore, client: redis.Redis) -> None:
    store.publish(report(1))
    newer = json.loads(report(2).to_json()) | {"version": WIRE_VERSION + 1}
    for member, text in ((b"newer", json.dumps(newer)), (b"\xff", "no report"), (b"\xfe", b"\xff"), (b"gone", None)):
        client.zadd(store._index, {member: time.time() + 600})
        if text is not None:
            client.set(store._key("").encode() + member, text, px=600_000)
    assert store.read_all() == Reports([report(1)], of_other_versions=3)


def test_a_process_that_stops_reporting_disappears_by_itself(
    store: ReportStore, brief_store: ReportStore, client: redis.Redis
) -> None:
    store.publish(report(1))
    assert 0 < client.pttl(store._key(report(1).key)) <= 600_000
    brief_store.publish(report(1))
    await_that(lambda: brief_store.read_all().live == [])


def test_the_standard_backend_s_connections_are_counted_over_all_threads() -> None:
    connection.ensure_connection()
    together = threading.Barrier(4, timeout=DEADLINE_S)

    def hold() -> None:
        connection.ensure_connection()  # each thread's own
        together.wait()
        together.wait()
        connection.close()

    with ThreadPoolExecutor(3) as threads:
        held = [threads.submit(hold) for _ in range(3)]
        together.wait()
        states = pools.pool_states()
        together.wait()
        assert [future.result() for future in held] == [None] * 3
    (state,) = (state for state in states if state.alias == connection.alias)
    assert (state.kind, state.engine, state.in_use) == ("per-thread", "django.db.backends.postgresql", 4)


# In a process of its own, where Django has psycopg 3.
NATIVE = """
import json, threading
from django.conf import settings
pool = {"min_size": 2, "max_size": 4, "timeout": 0.3}
database = {"ENGINE": "django.db.backends.postgresql", "NAME": "none", "HOST": "127.0.0.1", "PORT": 1}
settings.configure(INSTALLED_APPS=["poolhouse"], DATABASES={"default": database | {"OPTIONS": {"pool": pool}}})
import django
django.setup()
from django.db import OperationalError, connections
from poolhouse.process.pools import pool_states

def ask():
    try:
        connections["default"].ensure_connection()
    except OperationalError:
        refused.append(True)

refused = []
callers = [threading.Thread(target=ask) for _ in range(3)]
for caller in callers:
    caller.start()
for caller in callers:
    caller.join()
(state,) = pool_states()
connections["default"].close_pool()
print(json.dumps([len(refused), state.as_document()]))
"""


def test_connections_being_opened_by_the_native_pool_are_not_in_use() -> None:
    told = subprocess.run([sys.executable, "-c", NATIVE], check=True, capture_output=True, text=True).stdout
    refused, state = json.loads(told)
    assert (refused, state["counts"]["timeouts"]) == (3, 3)
    assert (state["in_use"], state["idle"], state["overflow"]) == (0, 0, 0)
    assert state["counts"]["lent"] == 0
    assert state["wait"]["count"] == 3
    assert state["wait"]["mean_s"] >= 0.3


UNMADE = """
import json, sys
from django.conf import settings
database = {"ENGINE": "django.db.backends.postgresql", "NAME": "none", "OPTIONS": {"pool": json.loads(sys.argv[1])}}
settings.configure(INSTALLED_APPS=["poolhouse"], DATABASES={"default": database})
import django
django.setup()
from django.db import connection
from poolhouse.process.pools import pool_states

(state,) = pool_states()
print(json.dumps([state.as_document(), list(connection._connection_pools), "psycopg_pool" in sys.modules]))
"""


@pytest.mark.parametrize(
    ("given", "sizes"),
    [(True, (4, 4)), ({"min_size": 2}, (2, 2)), ({"max_size": 6}, (4, 6)), ({"min_size": 0, "max_size": 3}, (0, 3))],
)
def test_an_unused_native_pool_is_reported_and_not_created(given: object, sizes: tuple[int, int]) -> None:
    command = [sys.executable, "-c", UNMADE, json.dumps(given)]
    state, made, is_imported = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert (state["kind"], state["min"], state["max"]) == ("native", *sizes)
    assert (state["in_use"], state["idle"], state["overflow"], state["waiting"]) == (0, 0, 0, 0)
    assert (made, is_imported) == ([], False)


def test_an_unreachable_source_is_named_and_the_other_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.ensure_connection()
    monkeypatch.setitem(connections.settings["default"], "PORT", "1")
    monkeypatch.setattr("poolhouse.overview.sources.store", lambda: None)
    status = take_status()
    assert status.server is None
    assert [source.source for source in status.unreachable] == ["process reports", "database server (default)"]
    assert "refused" in status.unreachable[1].reason


def test_a_timeout_can_be_a_fraction_of_a_second(configure: Callable[..., None]) -> None:
    def ask_what_takes_long() -> None:
        with monitor_cursor("default") as cursor:
            cursor.execute("SELECT current_setting('statement_timeout')")
            assert cursor.fetchall() == [("5250ms",)]
            cursor.execute("SELECT pg_sleep(60)")

    connection.ensure_connection()
    configure(MONITOR_TIMEOUT_S=5.25)
    with pytest.raises(driver("default").OperationalError, match=r"no answer within 5\.25 s|statement timeout"):
        ask_what_takes_long()
