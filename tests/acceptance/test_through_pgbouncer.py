"""The system with its web behind PgBouncer: who goes through it, who does not, and that the status still adds up."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.request import Request, urlopen

import pytest

from config.env import Database, Monitor, read
from sandbox.servers import Place, pgbouncer
from sandbox.stack import Stack
from tests.acceptance.conftest import Running, reader, started


@pytest.fixture(scope="module", params=["pgbouncer-transaction+queuepool", "pgbouncer-transaction+native"])
def behind(request: Any, make_stack: Callable[..., Stack], servers: Place) -> Iterator[Running]:
    """A stack whose web goes through a PgBouncer of its own."""
    stack = make_stack(DB_POOL_STRATEGY=request.param)
    named = read(Database).model_copy(update={"db_name": stack.variables["DB_NAME"]})
    pooler = pgbouncer(servers, named, read(Monitor))
    pooler.start()
    try:
        with started(stack) as running:
            yield running
    finally:
        pooler.stop()


def test_every_server_connection_has_its_owner_and_every_client_its_process(behind: Running) -> None:
    assert behind.get("/readyz") == {"database": "ok"}
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(behind.get, ["/"] * 40))
    behind.stack.await_fresh_reports()
    status = behind.status()
    assert status["unreachable"] == []
    assert status["verdict"]["level"] == "ok", status["verdict"]
    own = [one for one in status["connections"] if one["database"] == behind.stack.variables["DB_NAME"]]
    owners = {one["owner"] for one in own}
    assert "PgBouncer" in owners
    assert None not in owners, own
    assert not [owner for owner in owners if owner.startswith("web@")], "the web has no connection past PgBouncer"
    web = [process for process in status["processes"] if process["service"] == "web"]
    clients = [client["application"] for client in status["pgbouncer"]["clients"]]
    for process in web:
        (pool,) = process["pools"]
        assert clients.count(process["name"]) == pool["in_use"] + pool["idle"]
    assert clients
    assert set(clients) <= {process["name"] for process in web}, "nobody else goes through it"


def test_the_web_s_metrics_are_the_server_s(behind: Running) -> None:
    with urlopen(Request(f"{behind.stack.address}/metrics", headers=reader()), timeout=30) as answer:
        text = answer.read().decode()
    up = re.findall(r'poolhouse_source_up\{.*source="(\w+)".*\} 1\.0', text)
    assert sorted(up) == ["pgbouncer", "reports", "server"]


def test_a_file_goes_through_the_queue_and_a_command_past_pgbouncer(behind: Running) -> None:
    loading = ["generate_readings", "--series", "3", "--rate", "1/min", "--from", "2024-01-01", "--to", "2024-01-02"]
    assert "done" in behind.manage(*loading, "--enqueue", "--wait").stdout
    behind.manage("migrate", "--check")
    behind.manage("check", "--database", "default", "--fail-level", "WARNING")
