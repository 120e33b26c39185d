"""A load that stands still: what the processes report, and what the server sees, are the same."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from config.env import Database, read
from sandbox.isolation import connect
from sandbox.stack import Stack
from tests.acceptance.conftest import Running
from tests.acceptance.test_exhaustion import visit_session
from tests.conftest import DEADLINE_S

VISITORS = 16


@pytest.fixture
def frozen(make_stack: Callable[..., Stack]) -> Iterator[Running]:
    """A web of two processes, both of whose connections are all waiting for a lock that the test holds."""
    pool = {"DB_MAX_CONNS_DEV": "2", "DB_MAX_OVERFLOW_DEV": "1", "DB_MIN_CONNS": "0", "DB_POOL_TIMEOUT": "300"}
    stack = make_stack(**pool, WEB_PROCESSES="2", DB_STATEMENT_TIMEOUT="0")
    manager = stack.start()
    lock = connect(read(Database), name=stack.variables["DB_NAME"])
    try:
        with lock.cursor() as cursor:
            cursor.execute("LOCK TABLE django_session IN ACCESS EXCLUSIVE MODE")
        with ThreadPoolExecutor(VISITORS) as visitors:
            visits = [visitors.submit(visit_session, stack) for _ in range(VISITORS)]
            yield Running(stack, manager)
            lock.rollback()
            assert [visit.result() for visit in visits] == [200] * VISITORS
    finally:
        lock.close()
        stack.stop(manager)


def test_the_sums_of_the_reports_are_what_the_server_shows(frozen: Running) -> None:
    status = await_standstill(frozen)
    web = [process for process in status["processes"] if process["service"] == "web"]
    pools = [process["pools"][0] for process in web]
    owned = {process["name"]: 0 for process in web}
    for connection in status["connections"]:
        if connection["owner"] in owned:
            owned[connection["owner"]] += 1
    assert [pool["in_use"] + pool["idle"] for pool in pools] == [owned[process["name"]] for process in web]
    active = [one for one in status["connections"] if one["owner"] in owned and one["state"] == "active"]
    assert sum(pool["in_use"] for pool in pools) == len(active)
    assert sum(pool["overflow"] for pool in pools) == sum(max(0, pool["in_use"] - 2) for pool in pools)
    assert sum(pool["waiting"] for pool in pools) >= 1


def await_standstill(running: Running) -> dict[str, Any]:
    """Wait until a process has lent all that it has, and nothing changes any more; give the status."""
    deadline = time.monotonic() + DEADLINE_S
    before: list[tuple[int, int]] = []
    while True:
        status = running.status()
        pools = [process["pools"][0] for process in status["processes"] if process["service"] == "web"]
        now = [(pool["in_use"], pool["waiting"]) for pool in pools]
        if now == before and any(waiting for _, waiting in now):
            return status
        assert time.monotonic() < deadline, now
        before = now
        running.stack.await_fresh_reports()
