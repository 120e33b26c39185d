"""Reports during an outage of Redis, and after it."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.env import Queue, read
from poolhouse.reports.publisher import Publisher
from poolhouse.reports.store import ReportStore
from sandbox.isolation import free_ports
from sandbox.servers import Place, Server, broker
from tests.conftest import DEADLINE_S


@pytest.fixture
def redis_server(servers: Place, tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A Redis of the test's own, not started, and its URL."""
    (port,) = free_ports(1)
    queue = read(Queue).model_copy(update={"redis_port": port})
    own = Place(servers.root, tmp_path / "servers", die_with_parent=True)
    own.data.mkdir()
    server = broker(own, queue)
    yield server, queue.url
    server.stop()


def test_an_outage_of_redis_and_its_end_are_logged_once(
    redis_server: tuple[Server, str], caplog: pytest.LogCaptureFixture
) -> None:
    server, url = redis_server
    store = ReportStore(url, prefix="away", ttl_s=60, timeout_s=DEADLINE_S)
    publisher = Publisher(store)
    with caplog.at_level(logging.WARNING, "poolhouse.reports.publisher"):
        publisher.publish()
        publisher.publish()
        assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
            "cannot publish the pool report to Redis"
        ]
        server.start()
        publisher.publish()
        publisher.publish()
    assert [record.getMessage() for record in caplog.records[1:]] == ["publishing pool reports to Redis again"]
    (report,) = store.read_all().live
    assert report.service == "tests"
    publisher.withdraw()
    assert store.read_all().live == []
    store.close()


def test_two_processes_with_one_name_report_and_end_independently(servers: Place) -> None:
    store = ReportStore(read(Queue).url, prefix=f"twins-{time.monotonic_ns()}", ttl_s=60, timeout_s=DEADLINE_S)
    one, other = Publisher(store), Publisher(store)  # as in two containers with equal host names
    for publisher in (one, other, one):
        publisher.publish()
    first, second = store.read_all().live
    assert first.name == second.name
    one.withdraw()
    assert len(store.read_all().live) == 1
    other.withdraw()
    assert store.read_all().live == []
    store.close()
