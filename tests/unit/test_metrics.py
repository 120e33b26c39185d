"""The Prometheus metrics of made-up statuses: exact buckets, totals that only grow, and what is left out."""

import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from django.http import HttpResponse
from django.test import RequestFactory
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from poolhouse.conf import options
from poolhouse.engines.leaks import Suspect
from poolhouse.measures.histogram import Histogram, bucket_of
from poolhouse.measures.meter import COUNTERS, Meter
from poolhouse.metrics import views
from poolhouse.metrics.buckets import BOUNDS_S, ENDS, cumulative
from poolhouse.metrics.families import families_of
from poolhouse.metrics.fleet import COUNTED
from poolhouse.metrics.snapshot import Recent, Snapshot
from poolhouse.overview.sources import REPORTS
from poolhouse.overview.status import PGBOUNCER, ServerAnswers, Status, Unreachable
from poolhouse.process.pools import LENDING_ENGINE, PoolState
from poolhouse.reports.report import ProcessReport
from poolhouse.reports.totals import Numbers, Totals, increments, numbers_of, totals_of
from poolhouse.servers.pgbouncer import PgBouncer, PgBouncerPool, PgBouncerServer, PgBouncerStats
from poolhouse.servers.server import Block, Capacity, Limit, ServerConnection, ServerFacts
from tests.conftest import DEADLINE_S

POOL = PoolState("default", LENDING_ENGINE, "queuepool", 5, 10, in_use=3, idle=2, overflow=0, waiting=4, min=2)
PER_THREAD = PoolState("default", "django.db.backends.postgresql", "per-thread", None, None, 1, 0, 0)
SUSPECT = Suspect("request GET /", 31.0, "views.py:1 in index", "SELECT ?")


def histogram(*durations_s: float) -> Histogram:
    made = Histogram()
    for seconds in durations_s:
        made.record(seconds)
    return made


def report(service: str, pid: int, pool: PoolState = POOL) -> ProcessReport:
    return ProcessReport(f"{service}@box:{pid}", service, "box", pid, 0.0, 98.5, (pool,))


def connection(application: str, pid: int, state: str = "idle") -> ServerConnection:
    return ServerConnection(pid, application, "app", "shop", "127.0.0.1", 50_000 + pid, state, "", 1.0, 1.0, None)


def look(*reports: ProcessReport, totals: Totals | None = None) -> Snapshot:
    found = list(reports or (report("web", 1), report("worker", 2, PER_THREAD)))
    held = [connection("web@box:1", 11, "active"), connection("psql", 12)]
    server = ServerAnswers(("default",), ServerFacts(Capacity("17.2", 40, 3, 2), held, []))
    return Snapshot(Status(100.0, found, [server]), {"web": {"default": totals or Totals()}}, {("reports", ""): True})


Values = dict[tuple[str, ...], float]


def told(taken: Snapshot) -> Callable[..., Values]:
    """Return a function that reads the samples of a name by their label values from a scrape."""
    text = views._encoder("")[0](views._Collected([*families_of(taken)])).decode()
    samples = [sample for family in plain(text) for sample in family.samples]

    def values(name: str, *labels: str) -> Values:
        return {
            tuple(sample.labels[label] for label in labels): sample.value for sample in samples if sample.name == name
        }

    return values


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    views.recent.forget()


def test_each_bound_is_the_end_of_a_bucket() -> None:
    assert [bucket_of(bound_s) for bound_s in BOUNDS_S] == list(ENDS)
    assert (BOUNDS_S[0], BOUNDS_S[-1]) == (64e-6, 67.108864)


@given(st.lists(st.floats(min_value=1e-9, max_value=1e4)))
@example(list(BOUNDS_S))
@example([])
def test_the_count_below_each_bound_is_exact(durations_s: list[float]) -> None:
    buckets = cumulative(histogram(*durations_s))
    expected = [sum(seconds <= bound_s for seconds in durations_s) for bound_s in BOUNDS_S]
    # A float that is next to a bound may be counted on its other side.
    near = {
        i for i, bound_s in enumerate(BOUNDS_S) for s in durations_s if s != bound_s and abs(s / bound_s - 1) < 1e-9
    }
    assert [count for i, (_, count) in enumerate(buckets[:-1]) if i not in near] == [
        count for i, count in enumerate(expected) if i not in near
    ]
    assert buckets[-1] == ("+Inf", len(durations_s))


def test_durations_with_only_a_total_have_no_finite_bucket() -> None:
    assert cumulative(Histogram(total_s=3.0, without_bucket=7)) == [("+Inf", 7)]


def test_a_service_that_changes_to_an_engine_with_buckets_has_quantiles_from_then_on() -> None:
    before = Histogram(total_s=3.0, without_bucket=7)
    since = histogram(0.001, 5.0)
    assert dict(cumulative(Histogram.merged([before, since]))) == {**dict(cumulative(since)), "+Inf": 9}


def pool_with(*, timeouts: int, waits_s: tuple[float, ...] = ()) -> PoolState:
    return replace(POOL, counts={"lent": len(waits_s), "timeouts": timeouts}, wait=histogram(*waits_s))


def test_increments_hold_what_is_new_and_zero_for_new_names() -> None:
    before = numbers_of([pool_with(timeouts=0, waits_s=(0.5,))])
    now = numbers_of([pool_with(timeouts=2, waits_s=(0.5, 0.25))])
    assert increments({}, before)["default:count:timeouts"] == 0
    assert increments(before, now) == {
        "default:count:lent": 1,
        "default:count:timeouts": 2,
        f"default:wait:{bucket_of(0.25)}": 1,
        "default:wait:total_us": 250_000,
    }
    assert increments(now, now) == {}


def test_all_counts_of_a_recreated_pool_are_increments() -> None:
    before, now = numbers_of([pool_with(timeouts=9)]), numbers_of([pool_with(timeouts=2)])
    assert increments(before, now)["default:count:timeouts"] == 2


def test_totals_include_processes_that_have_ended() -> None:
    written: Numbers = {}
    for _ in range(3):  # three processes, one after the other
        told_before: Numbers = {}
        for timeouts, waits_s in ((1, (0.1,)), (2, (0.1, 3.0))):
            numbers = numbers_of([pool_with(timeouts=timeouts, waits_s=waits_s)])
            for name, increment in increments(told_before, numbers).items():
                assert increment >= 0
                written[name] = written.get(name, 0) + increment
            told_before = numbers
    (totals,) = totals_of(written).values()
    assert totals.counts == {"lent": 6, "timeouts": 6}
    assert totals.durations["wait"] == histogram(*[0.1, 3.0] * 3)


def test_totals_work_with_colons_in_an_alias() -> None:
    assert totals_of(numbers_of([replace(POOL, alias="a:b", counts={"lent": 1})]))["a:b"].counts == {"lent": 1}


def test_pools_are_exported_by_process_with_opentelemetry_s_names() -> None:
    values = told(look())
    count = values("db_client_connection_count", "service", "host", "pid", "alias", "state")
    assert count == {
        ("web", "box", "1", "default", "idle"): 2,
        ("web", "box", "1", "default", "used"): 3,
        ("worker", "box", "2", "default", "idle"): 0,
        ("worker", "box", "2", "default", "used"): 1,
    }
    assert values("poolhouse_report_age_seconds", "pid") == {("1",): 1.5, ("2",): 1.5}


def test_processes_that_share_a_name_are_series_of_their_own() -> None:
    twins = [replace(report("web", 1), run=run) for run in "ab"]
    values = told(look(*twins, report("web", 2)))
    assert set(values("db_client_connection_count", "host", "pid")) == {("box/a", "1"), ("box/b", "1"), ("box", "2")}
    assert len(values("poolhouse_report_age_seconds", "host", "pid")) == 3
    assert values("poolhouse_processes", "service")["web",] == 3


@pytest.mark.parametrize(
    ("name", "value"), [("max", 10), ("idle_max", 5), ("idle_min", 2), ("pending_requests", 4)], ids=str
)
def test_values_that_an_engine_does_not_report_are_left_out(name: str, value: int) -> None:
    assert told(look())(f"db_client_connection_{name}", "service") == {("web",): value}


def test_leak_suspects_are_exported_for_engines_that_look_for_them() -> None:
    values = told(look(report("web", 1, replace(POOL, suspects=(SUSPECT,))), report("worker", 2, PER_THREAD)))
    assert values("poolhouse_leak_suspects", "service") == {("web",): 1}


def test_totals_are_exported_by_service() -> None:
    totals = Totals(Counter(dict.fromkeys(COUNTERS, 7)), {"hold": histogram(0.001, 0.001, 5.0)})
    values = told(look(totals=totals))
    assert values("db_client_connection_timeouts_total", "service", "alias") == {("web", "default"): 7}
    assert values("poolhouse_pool_lent_total", "service") == {("web",): 7}
    buckets = values("db_client_connection_use_time_seconds_bucket", "le")
    assert [buckets[str(bound_s),] for bound_s in (BOUNDS_S[3], BOUNDS_S[4], BOUNDS_S[-1])] == [0, 2, 3]
    assert values("db_client_connection_use_time_seconds_sum") == {(): pytest.approx(5.002)}
    assert values("db_client_connection_use_time_seconds_count") == {(): 3}
    assert values("db_client_connection_wait_time_seconds_count") == {}


def test_every_counter_of_a_meter_is_exported() -> None:
    assert {*COUNTED, "timeouts"} == {*COUNTERS}, (
        "a counter of poolhouse.measures.meter is missing in poolhouse.metrics.fleet"
    )


def test_server_connections_are_exported_by_service() -> None:
    values = told(look())
    assert values("poolhouse_server_connections", "service", "state") == {("web", "active"): 1, ("", "idle"): 1}
    assert values("poolhouse_server_reserved_connections", "role") == {
        ("superuser",): 3,
        ("pg_use_reserved_connections",): 2,
    }
    for name, value in (("max", 40), ("usable", 35), ("used", 2), ("room", 33)):
        assert values(f"poolhouse_server_{name}_connections", "server") == {("default",): value}


def test_locks_and_limits_are_exported_by_server() -> None:
    taken = look()
    (first,) = taken.status.servers
    idle = replace(connection("web@box:1", 13, "idle in transaction"), state_age_s=44.0)
    facts = replace(
        first.facts,
        connections=[idle, connection("web@box:1", 14, "active")],
        blocks=[Block(14, "relation", 13.0, 13, "web@box:1"), Block(14, "relation", 13.0, 15, "psql")],
        limits=[Limit("role", "app", 3)],
    )
    status = replace(taken.status, servers=[first, ServerAnswers(("other",), facts)])
    values = told(replace(taken, status=status))
    both = {("default",): 0, ("other",): 13.0}
    assert values("poolhouse_server_longest_block_seconds", "server") == both
    assert values("poolhouse_server_blocked_sessions", "server") == {("default",): 0, ("other",): 1}
    assert values("poolhouse_server_longest_idle_in_transaction_seconds", "server") == {("default",): 0, ("other",): 44}
    assert values("poolhouse_server_room_connections", "server") == {("default",): 33, ("other",): 1}
    assert values("poolhouse_server_limit_connections", "server", "kind", "name") == {("other", "role", "app"): 3}
    assert values("poolhouse_server_limit_used_connections", "server") == {("other",): 2}
    assert values("poolhouse_server_connections", "server", "service", "state")["other", "web", "active"] == 1


def test_without_pgbouncer_s_answer_both_possible_holders_are_exported() -> None:
    taken = look()
    status = replace(taken.status, unreachable=[Unreachable(PGBOUNCER, "refused")])
    holders = told(replace(taken, status=status))("poolhouse_server_connections", "service")
    assert holders == {("web or pgbouncer",): 1, ("",): 1}


def test_reports_of_other_versions_are_counted() -> None:
    taken = look()
    values = told(replace(taken, status=replace(taken.status, of_other_versions=3)))
    assert values("poolhouse_reports_of_other_versions") == {(): 3}


def test_pgbouncer_is_exported_with_its_own_connections() -> None:
    pooler = PgBouncer(
        "1.24.1",
        [PgBouncerPool("shop", "app", "transaction", 5, 4, 3, 2, 1, 0.75)],
        [PgBouncerStats("shop", 10, 20, 30, 40, 1.5, 0, 0, 0.0, 0.0, 0.0)],
        [PgBouncerServer("shop", "app", "web@box:1", "active", 50_011, 11)],
        [],
    )
    taken = look()
    values = told(replace(taken, status=replace(taken.status, pgbouncer=pooler)))
    assert values("poolhouse_server_connections", "service", "state")["pgbouncer", "active"] == 1
    assert values("poolhouse_pgbouncer_clients", "state") == {("active",): 5, ("waiting",): 4}
    assert values("poolhouse_pgbouncer_servers", "state") == {("active",): 3, ("idle",): 2, ("login",): 1}
    assert values("poolhouse_pgbouncer_longest_wait_seconds", "database", "user") == {("shop", "app"): 0.75}
    assert values("poolhouse_pgbouncer_wait_seconds_total", "database") == {("shop",): 1.5}


def test_an_unreachable_source_is_down_and_has_no_other_samples() -> None:
    is_up = {("reports", ""): False, ("server", "default"): False, ("pgbouncer", ""): False}
    values = told(Snapshot(Status(100.0, [], [], [Unreachable(REPORTS, "refused")]), is_up=is_up))
    assert values("poolhouse_source_up", "source", "server") == dict.fromkeys(is_up, 0)
    assert values("poolhouse_processes") == values("poolhouse_server_used_connections") == {}


def answer(accept: str, monkeypatch: pytest.MonkeyPatch) -> HttpResponse:
    monkeypatch.setattr("poolhouse.metrics.views.take_snapshot", look)
    return views.metrics(
        RequestFactory().get(
            "/metrics", headers={"Accept": accept, "Authorization": f"Bearer {options().METRICS_TOKEN}"}
        )
    )


def test_openmetrics_is_returned_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", monkeypatch)
    assert found.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in openmetrics(found.content.decode())}  # type: ignore[no-untyped-call]
    assert {"db_client_connection_count", "db_client_connection_wait_time_seconds"} <= names


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/html", "application/openmetrics-text; version=soon", "text/plain;"]
)
def test_the_default_format_is_plain_text(accept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer(accept, monkeypatch)
    assert (found.status_code, found.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")


def test_simultaneous_scrapes_share_one_answer() -> None:
    looks: list[int] = []
    together = threading.Barrier(8, timeout=DEADLINE_S)

    def slow_look() -> int:
        looks.append(len(looks))
        time.sleep(0.05)
        return looks[-1]

    recent = Recent(slow_look)

    def ask() -> int:
        together.wait()
        return recent.get(60)

    with ThreadPoolExecutor(8) as threads:
        assert [future.result() for future in [threads.submit(ask) for _ in range(8)]] == [0] * 8
    recent.forget()
    assert (recent.get(60), recent.get(60)) == (1, 1)


def test_during_a_refresh_others_get_the_previous_answer() -> None:
    asking, go_on = threading.Event(), threading.Event()
    looks = iter(range(9))

    def hang() -> int:
        look = next(looks)
        if look:
            asking.set()
            assert go_on.wait(DEADLINE_S)
        return look

    recent = Recent(hang)
    assert recent.get(0) == 0
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(recent.get, 0)
        assert asking.wait(DEADLINE_S)
        assert [recent.get(0), recent.get(0)] == [0, 0]
        go_on.set()
        assert slow.result() == 1


def test_an_expired_answer_is_refreshed() -> None:
    looks = iter(range(9))
    recent = Recent(lambda: next(looks))
    assert [recent.get(0), recent.get(0), recent.get(0)] == [0, 1, 2]


def test_listeners_get_every_duration_with_its_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, str, float]] = []
    monkeypatch.setattr("poolhouse.measures.meter._listeners", [lambda *told: heard.append(told)])
    meter = Meter("replica")
    meter.checked_out(0.1)
    meter.checked_in(0.2)
    meter.connected(0.3)
    assert heard == [("replica", "wait", 0.1), ("replica", "hold", 0.2), ("replica", "connect", 0.3)]


START = """
from django.conf import settings
settings.configure(INSTALLED_APPS=["poolhouse"], DATABASES={"default": {"ENGINE": "django.db.backends.postgresql"}})
import django
django.setup()
from poolhouse.measures import meter
print(len(meter._listeners))
"""


def started(before: str, *path: Path) -> tuple[int, str]:
    """Start the app in a process of its own; return the number of listeners and the log."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", before + START]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return int(answer.stdout), answer.stderr


def test_the_app_starts_without_both_metrics_libraries() -> None:
    program = 'import sys; sys.modules["prometheus_client"] = sys.modules["opentelemetry"] = None'
    assert started(program) == (0, "")


def test_the_app_starts_with_only_another_part_of_opentelemetry_s_namespace(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry" / "proto").mkdir(parents=True)
    program = """
import opentelemetry
opentelemetry.__path__ = [folder for folder in opentelemetry.__path__ if "site-packages" not in folder]
"""
    assert started(program, tmp_path) == (0, "")


def test_an_opentelemetry_without_bucket_boundaries_is_logged_and_not_used() -> None:
    program = """
from opentelemetry import metrics
def create_histogram(self, name, unit="", description=""):
    raise AssertionError("its buckets would be wrong")
metrics.Meter.create_histogram = create_histogram
"""
    listeners, log = started(program)
    assert listeners == 0
    assert re.fullmatch(
        r"cannot register the pools with OpenTelemetry: RuntimeError: "
        r"opentelemetry-api 1\.30 or later is required, got \S+\n",
        log,
    )


def test_the_app_starts_and_logs_any_error_of_opentelemetry() -> None:
    program = """
from opentelemetry import metrics
def get_meter(*_):
    raise RuntimeError("OTEL_PYTHON_METER_PROVIDER names none")
metrics.get_meter = get_meter
"""
    listeners, log = started(program)
    assert listeners == 0
    assert log.splitlines() == [
        "cannot register the pools with OpenTelemetry: RuntimeError: OTEL_PYTHON_METER_PROVIDER names none"
    ]


def test_a_working_opentelemetry_gets_the_pools() -> None:
    assert started("") == (1, "")
