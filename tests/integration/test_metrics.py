"""`/metrics` on real servers, complete and with each source unreachable, and the metrics of OpenTelemetry's SDK."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from django.db import connection, connections
from django.test import Client
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import DjangoAssertNumQueries

from config.env import Database, Monitor, read
from poolhouse.identity import current
from poolhouse.metrics import otel, views
from poolhouse.metrics.buckets import BOUNDS_S
from poolhouse.metrics.snapshot import Snapshot, take_snapshot
from poolhouse.process.pools import LENDING_ENGINE
from poolhouse.reports.publisher import Publisher
from poolhouse.reports.store import ReportStore
from poolhouse.reports.store import store as reports_of
from poolhouse.reports.totals import totals_of
from sandbox.isolation import connect
from sandbox.servers import Place, pgbouncer
from tests.conftest import DEADLINE_S
from tests.integration.conftest import await_that, frozen

pytestmark = pytest.mark.django_db

Configure = Callable[..., None]
Samples = dict[str, list[tuple[dict[str, str], float]]]


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    views.recent.forget()
    yield
    views.recent.forget()


@pytest.fixture
def published(configure: Configure) -> Iterator[Publisher]:
    """Publish this process' report in a store of the test's own."""
    configure(KEY_PREFIX=f"test-{time.monotonic_ns()}")
    reports_of.cache_clear()
    target = reports_of()
    assert target
    publisher = Publisher(target)
    publisher.publish()
    yield publisher
    publisher.withdraw()
    target.close()
    reports_of.cache_clear()


def scrape(client: Client) -> Samples:
    answer = client.get(
        "/metrics", headers={"Authorization": f"Bearer {read(Monitor).metrics_token.get_secret_value()}"}
    )
    assert answer.status_code == 200
    samples: Samples = {}
    for family in text_string_to_metric_families(answer.content.decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


def sources(samples: Samples) -> dict[str, float]:
    assert [labels["server"] for labels, _ in samples["poolhouse_source_up"] if labels["source"] == "server"] == [
        "default"
    ]
    return {labels["source"]: value for labels, value in samples["poolhouse_source_up"]}


def value_of(samples: Samples, name: str) -> float:
    ((_, value),) = samples[name]
    return value


@pytest.mark.usefixtures("published")
def test_the_fleet_and_the_server_are_exported(client: Client) -> None:
    connection.ensure_connection()
    samples = scrape(client)
    assert sources(samples) == {"reports": 1, "server": 1}
    me = {"service": "tests", "host": current().host, "pid": str(current().pid)}
    assert [labels for labels, _ in samples["poolhouse_report_age_seconds"]] == [me]
    expected = {labels["service"]: value for labels, value in samples["poolhouse_expected_processes"]}
    assert expected == {"web": 2, "worker": 3, "beat": 1}
    assert value_of(samples, "poolhouse_server_max_connections") == 40
    assert value_of(samples, "poolhouse_server_usable_connections") == 35
    by_holder = {(one["service"], one["state"]): value for one, value in samples["poolhouse_server_connections"]}
    assert sum(by_holder.values()) == value_of(samples, "poolhouse_server_used_connections")
    assert sum(value for (service, _), value in by_holder.items() if service == "tests") >= 1


def test_a_scrape_uses_no_connection_of_the_application(
    client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0):
        scrape(client)

    def tells_of_no_scrape() -> bool:  # the server takes a moment to end the one before
        views.recent.forget()
        told = value_of(scrape(client), "poolhouse_server_used_connections")
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND application_name NOT LIKE 'monitor@%'"
            )
            ((others,),) = cursor.fetchall()
        return bool(told == others)

    await_that(tells_of_no_scrape)


def test_scrapes_within_a_second_share_one_answer(
    client: Client, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Snapshot] = []

    def count_looks() -> Snapshot:
        looks.append(take_snapshot())
        return looks[-1]

    monkeypatch.setattr(views, "take_snapshot", count_looks)
    configure(METRICS_MAX_AGE_S=60)
    scrape(client), scrape(client)
    assert len(looks) == 1
    views.recent.forget()
    configure(METRICS_MAX_AGE_S=0)
    scrape(client), scrape(client)
    assert len(looks) == 3


def test_an_unreachable_server_hides_nothing_else(
    client: Client, published: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.ensure_connection()
    monkeypatch.setitem(connection.settings_dict, "PORT", "1")
    samples = scrape(client)
    assert sources(samples) == {"reports": 1, "server": 0}
    assert samples["db_client_connection_count"]
    assert "poolhouse_server_used_connections" not in samples


def test_unreachable_reports_hide_nothing_else(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    away = ReportStore("redis://127.0.0.1:1/0", prefix="p", ttl_s=5, timeout_s=1)
    monkeypatch.setattr("poolhouse.metrics.snapshot.store", lambda: away)
    monkeypatch.setattr("poolhouse.overview.sources.store", lambda: away)
    samples = scrape(client)
    assert sources(samples) == {"reports": 0, "server": 1}
    assert "poolhouse_processes" not in samples
    assert value_of(samples, "poolhouse_server_max_connections") == 40


def test_without_redis_url_the_reports_are_not_a_source(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolhouse.metrics.snapshot.store", lambda: None)
    monkeypatch.setattr("poolhouse.overview.sources.store", lambda: None)
    assert sources(scrape(client)) == {"server": 1}


def test_the_application_s_role_is_used_if_the_monitor_s_is_refused(client: Client, configure: Configure) -> None:
    configure(MONITOR_USER="nobody_of_that_name")
    assert sources(scrape(client))["server"] == 1


@pytest.mark.parametrize("name", ["timescale/postmaster.pid", "redis/redis.pid"])
def test_a_source_that_hangs_costs_no_more_than_its_timeout(
    name: str, client: Client, configure: Configure, servers: Place
) -> None:
    configure(MONITOR_TIMEOUT_S=10)
    reports_of.cache_clear()  # with the shorter time
    try:
        with frozen(int((servers.data / name).read_text().split()[0])):
            samples = scrape(client)
    finally:
        reports_of.cache_clear()
    assert sorted(sources(samples).values()) == [0, 1]


def test_pgbouncer_is_exported_if_configured(client: Client, configure: Configure, servers: Place) -> None:
    pooler = pgbouncer(servers, read(Database), read(Monitor))
    url = read(Monitor).model_copy(update={"pgbouncer_host": "127.0.0.1"}).pgbouncer_url
    configure(PGBOUNCER_URL=url)
    assert sources(scrape(client))["pgbouncer"] == 0
    views.recent.forget()
    pooler.start()
    try:
        through = connect(read(Database).model_copy(update={"db_port": pooler.port}), name="poolhouse_transaction")
        through.cursor().execute("SELECT 1")  # in a transaction, so that it keeps a connection of the server's
        samples = scrape(client)
        through.close()
    finally:
        pooler.stop()
    assert sources(samples)["pgbouncer"] == 1
    assert clients(samples) == {"active": 1, "waiting": 0}
    held = {one["service"]: value for one, value in samples["poolhouse_server_connections"] if one["service"]}
    assert held == {"pgbouncer": 1}


def clients(samples: Samples) -> dict[str, float]:
    return {labels["state"]: value for labels, value in samples["poolhouse_pgbouncer_clients"]}


def lent(target: ReportStore) -> int:
    return totals_of(target.read_totals(["tests"])["tests"])["default"].counts["connects"]


def test_totals_stay_when_the_process_ends_and_its_successor_adds_to_them(published: Publisher) -> None:
    target = reports_of()
    assert target
    counted = lent(target)
    published.withdraw()
    assert target.read_all().live == []
    assert lent(target) == counted
    Publisher(target).publish()  # another process, which has opened as many
    assert lent(target) == 2 * counted


def test_counts_during_an_outage_of_redis_are_added_once_afterwards(
    published: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = reports_of()
    assert target
    counted = lent(target)

    def refuse(*_: Any) -> None:
        raise redis.ConnectionError("away")

    for _ in range(3):
        other = connections.create_connection("default")
        other.ensure_connection()
        other.close()
        with monkeypatch.context() as away:
            away.setattr(target, "publish", refuse)
            published.publish()
    assert lent(target) == counted
    published.publish()
    published.publish()
    assert lent(target) == counted + 3


def test_the_last_counts_are_added_when_the_process_ends(published: Publisher) -> None:
    target = reports_of()
    assert target
    counted = lent(target)
    other = connections.create_connection("default")
    other.ensure_connection()
    other.close()
    published.withdraw()
    assert lent(target) == counted + 1


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    """OpenTelemetry's SDK with this process' pools registered."""
    memory = InMemoryMetricReader()
    provider = MeterProvider([memory])
    monkeypatch.setattr(otel, "get_meter", provider.get_meter)
    monkeypatch.setattr("poolhouse.measures.meter._listeners", [])
    otel.observe_pools()
    yield memory
    provider.shutdown()


@pytest.fixture
def alias() -> Iterator[str]:
    """An alias with this app's engine and two connections."""
    from dj_db_conn_pool.core import pool_container

    template = connections["default"].settings_dict
    connections.settings["lending"] = {
        **template,
        "ENGINE": LENDING_ENGINE,
        "CONN_MAX_AGE": 0,
        "OPTIONS": dict(template["OPTIONS"]),
        "POOL_OPTIONS": {"POOL_SIZE": 2, "MAX_OVERFLOW": 1, "TIMEOUT": DEADLINE_S, "MIN_SIZE": 1},
    }
    yield "lending"
    if pool_container.has("lending"):
        pool_container.get("lending").dispose()
        del pool_container["lending"]
    del connections["lending"]
    del connections.settings["lending"]


Point = NumberDataPoint | HistogramDataPoint


def points(reader: InMemoryMetricReader, alias: str) -> dict[str, tuple[str, list[Point]]]:
    """Return the unit and the points of each instrument for one alias."""
    data = reader.get_metrics_data()
    assert data
    found: dict[str, tuple[str, list[Point]]] = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        of_alias: list[Any] = [
            point
            for point in metric.data.data_points
            if (point.attributes or {})["db.client.connection.pool.name"] == alias
        ]
        found[metric.name] = (metric.unit or "", of_alias)
    return found


@pytest.mark.django_db(databases=["default"])
def test_opentelemetry_metrics_have_the_names_of_its_conventions(
    reader: InMemoryMetricReader, alias: str, django_db_blocker: Any
) -> None:
    from dj_db_conn_pool.core import pool_container

    with django_db_blocker.unblock(), ExitStack() as held:
        for _ in range(3):
            wrapper = connections.create_connection(alias)
            wrapper.ensure_connection()
            held.callback(wrapper.close)
        pool_container.get(alias)._timeout = 0.1
        with pytest.raises(Exception, match="all connections are in use"):
            connections.create_connection(alias).ensure_connection()
        full = points(reader, alias)
        held.pop_all().close()
    after = points(reader, alias)
    numbers = {
        name.removeprefix("db.client.connection."): (unit, [point.value for point in of_name])  # type: ignore[union-attr]
        for name, (unit, of_name) in full.items()
        if not name.endswith("_time")
    }
    assert numbers == {
        "count": ("{connection}", [0, 3]),
        "idle.max": ("{connection}", [2]),
        "idle.min": ("{connection}", [1]),
        "max": ("{connection}", [3]),
        "pending_requests": ("{request}", [0]),
        "timeouts": ("{timeout}", [1]),
    }
    states = [(point.attributes or {})["db.client.connection.state"] for point in full["db.client.connection.count"][1]]
    assert states == ["idle", "used"]
    durations = {name: of_name[0] for name, (unit, of_name) in after.items() if unit == "s"}
    assert {name.removeprefix("db.client.connection."): point.count for name, point in durations.items()} == {  # type: ignore[union-attr]
        "create_time": 3,
        "wait_time": 4,  # who timed out has waited
        "use_time": 3,
    }
    assert all(tuple(point.explicit_bounds) == BOUNDS_S for point in durations.values())  # type: ignore[union-attr]
