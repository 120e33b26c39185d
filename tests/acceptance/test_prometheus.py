"""A real Prometheus scrapes a real web with several processes, with the configuration of the containers."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from config.env import CHECKOUT, Database, Monitor, read
from sandbox import debian
from sandbox.isolation import connect
from sandbox.servers import Place, Server
from sandbox.stack import Stack
from tests.acceptance.conftest import Running, reader, started
from tests.acceptance.test_exhaustion import visit_session
from tests.conftest import DEADLINE_S, await_that
from tests.plugin import free_ports

WEB_PROCESSES, POOL_SIZE = 3, 2
FLEET = 'service=~"web|worker|beat"'

Values = dict[tuple[str, ...], float]


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    port: int

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of a response of its HTTP API."""
        with urlopen(
            f"http://127.0.0.1:{self.port}/api/v1/{path}?{urlencode(parameters)}", timeout=DEADLINE_S
        ) as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        return document["data"]

    def query(self, promql: str) -> Values:
        """Return the values of a query by their labels' values, in the order of the labels' names."""
        return {
            tuple(value for name, value in sorted(one["metric"].items()) if name != "__name__"): float(one["value"][1])
            for one in self.ask("query", query=promql)["result"]
        }

    def firing(self) -> set[tuple[str, str]]:
        """Return the firing alerts, each with its service."""
        return {
            (one["labels"]["alertname"], one["labels"].get("service", ""))
            for one in self.ask("alerts")["alerts"]
            if one["state"] == "firing"
        }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Prometheus' programs and the project's configuration."""
    debian.ensure_tools()
    debian.make(debian.cached_prometheus())
    data = tmp_path_factory.mktemp("prometheus")
    shutil.copytree(CHECKOUT / "prometheus", data / "prometheus")
    return Place(debian.cached_prometheus(), data, die_with_parent=True)


@pytest.fixture(scope="module")
def running(make_stack: Callable[..., Stack]) -> Iterator[Running]:
    """A stack whose web has three processes of two connections each."""
    pool = {"DB_MAX_CONNS_DEV": str(POOL_SIZE), "DB_MAX_OVERFLOW_DEV": "0", "DB_POOL_TIMEOUT": "300"}
    stack = make_stack(**pool, WEB_PROCESSES=str(WEB_PROCESSES), DB_STATEMENT_TIMEOUT="0")
    with started(stack) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(running: Running, place: Place) -> Iterator[Prometheus]:
    """A Prometheus with shorter intervals than the project's configuration, which scrapes the stack's web."""
    folder = place.data / "prometheus"
    token = folder / "METRICS_TOKEN"
    token.write_text(read(Monitor).metrics_token.get_secret_value())
    address = f"127.0.0.1:{running.stack.web_port}"
    changes = {r"backend:8000": address, r"/run/secrets/METRICS_TOKEN": token.name, r"1[05]s$": "2s"}
    hurry(folder / "prometheus.yml", changes)
    hurry(folder / "alerts.yml", {r"for: \w+$": "for: 0s"})
    (port,) = free_ports(1)
    server = server_of(place, port)
    server.start()
    try:
        found = Prometheus(port)
        await_that(lambda: found.query('up{job="poolhouse"}') != {}, "a first scrape")
        yield found
    finally:
        server.stop()


def hurry(path: Path, changes: dict[str, str]) -> None:
    """Shorten the intervals of a file, so that the test need not wait for them."""
    text = path.read_text()
    for pattern, replacement in changes.items():
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert count, f"{path.name} has no {pattern} any more"
    path.write_text(text)


def server_of(place: Place, port: int) -> Server:
    def answers() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    options = (
        "--config.file=prometheus.yml --storage.tsdb.path=tsdb --query.lookback-delta=30s "
        f"--web.listen-address=127.0.0.1:{port} --log.level=warn"
    )
    return Server(
        name="prometheus",
        program="prometheus",
        place=place,
        port=port,
        port_variable="",
        argv=["/bin/sh", "-c", f"cd /data/prometheus && echo $$ >pid && exec /usr/bin/prometheus {options}"],
        pid_file="prometheus/pid",
        answers=answers,
    )


@pytest.mark.parametrize(
    "check",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")],
)
def test_configuration_and_alerts_pass_promtool(check: tuple[str, ...], place: Place, tmp_path: Path) -> None:
    folder = shutil.copytree(CHECKOUT / "prometheus", tmp_path / "prometheus")
    (folder / "METRICS_TOKEN").touch()  # promtool looks for the file
    hurry(folder / "prometheus.yml", {r"/run/secrets/METRICS_TOKEN": "METRICS_TOKEN"})
    shipped = Place(place.root, tmp_path, die_with_parent=True)
    words = " ".join(check)
    shipped.run(["/bin/sh", "-c", f"cd /data/prometheus && exec /usr/bin/promtool {words}"])


def by_service(status: dict[str, Any], number: Callable[[dict[str, Any]], int]) -> Values:
    sums: Values = {}
    for process in status["processes"]:
        if process["service"] in ("web", "worker", "beat"):
            found = sum(number(pool) for pool in process["pools"])
            sums[(process["service"],)] = sums.get((process["service"],), 0) + found
    return sums


def test_a_query_returns_the_sums_of_the_status(running: Running, prometheus: Prometheus) -> None:
    with ThreadPoolExecutor(8) as visitors:
        served_by = {answer["process"] for answer in visitors.map(lambda _: running.get("/"), range(60))}
    assert len(served_by) == WEB_PROCESSES

    def they_agree() -> bool:
        status = running.status()
        return (
            prometheus.query(f"sum by (service) (db_client_connection_count{{{FLEET}}})")
            == by_service(status, lambda pool: pool["in_use"] + pool["idle"])
            and prometheus.query('sum by (service) (poolhouse_pool_lent_total{service="web"})').items()
            <= by_service(status, lambda pool: pool["counts"].get("lent", 0)).items()
            and prometheus.query("sum by (service) (poolhouse_pool_connects_total{service=~'web|worker'})").items()
            <= by_service(status, lambda pool: pool["counts"].get("connects", 0)).items()
            and prometheus.query("sum(poolhouse_server_used_connections)") == {(): status["servers"][0]["used"]}
            and prometheus.query("sum(poolhouse_server_usable_connections)") == {(): status["servers"][0]["usable"]}
        )

    await_that(they_agree, "Prometheus and the status agree")
    counted = "sum by (service) (poolhouse_pool_lent_total)"
    assert prometheus.query(f"{counted} >= 60")[("web",)]
    waits = "sum by (service) (db_client_connection_wait_time_seconds_count)"
    assert prometheus.query(f"{counted} == {waits}")[("web",)], "each checkout has a wait time"
    assert prometheus.query(f"sum by (service) (poolhouse_processes{{{FLEET}}})") == {
        ("web",): WEB_PROCESSES,
        ("worker",): 3,
        ("beat",): 1,
    }


def test_every_web_process_returns_the_same_metrics(running: Running) -> None:
    def told(_: int) -> frozenset[str]:
        with urlopen(Request(f"{running.stack.address}/metrics", headers=reader()), timeout=DEADLINE_S) as answer:
            lines = answer.read().decode().splitlines()
        return frozenset(line for line in lines if line.startswith("db_client_connection_count{"))

    running.stack.await_fresh_reports()
    assert {len(lines) for lines in map(told, range(20))} == {2 * (WEB_PROCESSES + 3 + 1)}


def test_counters_keep_their_value_when_a_process_is_killed_and_its_gauges_disappear(
    running: Running, prometheus: Prometheus
) -> None:
    pids = 'count by (pid) (db_client_connection_max{service="web"})'
    total = 'sum(poolhouse_pool_lent_total{service="web"})'
    await_that(lambda: len(prometheus.query(pids)) == WEB_PROCESSES, "each process of the web")
    running.stack.await_fresh_reports()
    counted = prometheus.query(total)[()]
    victim = min(int(pid) for (pid,) in prometheus.query(pids))
    os.kill(victim, signal.SIGKILL)

    def is_replaced() -> bool:
        now = {int(pid) for (pid,) in prometheus.query(pids)}
        return victim not in now and len(now) == WEB_PROCESSES

    await_that(is_replaced, "the successor of a process that was killed")
    assert prometheus.query(total)[()] >= counted
    assert prometheus.query('sum(resets(poolhouse_pool_lent_total{service="web"}[5m]))') == {(): 0}


@contextmanager
def exhausted(stack: Stack) -> Iterator[None]:
    """Requests that occupy every connection of the web by waiting for a lock, and one that waits for a connection."""
    lock = connect(read(Database), name=stack.variables["DB_NAME"])
    try:
        with lock.cursor() as cursor:
            cursor.execute("LOCK TABLE django_session IN ACCESS EXCLUSIVE MODE")
        with ThreadPoolExecutor(WEB_PROCESSES * POOL_SIZE + 1) as visitors:
            for _ in range(WEB_PROCESSES * POOL_SIZE + 1):
                visitors.submit(visit_session, stack)
            try:
                yield
            finally:
                lock.rollback()
    finally:
        lock.close()


def test_an_exhausted_pool_is_alerted_while_it_lasts(running: Running, prometheus: Prometheus) -> None:
    alert = ("PoolExhausted", "web")
    assert alert not in prometheus.firing()
    with exhausted(running.stack):
        await_that(lambda: alert in prometheus.firing(), "the alert fires")
        assert prometheus.query("sum(db_client_connection_pending_requests)")[()] >= 1
    await_that(lambda: alert not in prometheus.firing(), "the alert is over")
    await_that(lambda: prometheus.query('up{job="poolhouse"}').popitem()[1] == 1, "a scrape")
