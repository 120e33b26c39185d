"""Reporting processes that fork: a child must not need a lock that a thread of its parent held."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from config.env import CHECKOUT, Queue, read
from sandbox.isolation import free_ports
from sandbox.servers import Place, Server, broker
from tests.integration.test_engine import OURS, PLAIN

STANDARD = "django.db.backends.postgresql"
STRATEGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "ours on psycopg2": ("psycopg2", {"ENGINE": OURS, "POOL_OPTIONS": {"MIN_SIZE": 2}}),
    "ours on psycopg 3": ("psycopg", {"ENGINE": OURS, "POOL_OPTIONS": {"MIN_SIZE": 2}}),
    "dj_db_conn_pool's": ("psycopg2", {"ENGINE": PLAIN}),
    "native": ("psycopg", {"ENGINE": STANDARD, "OPTIONS": {"pool": {"min_size": 1, "max_size": 2}}}),
    "standard on psycopg2": ("psycopg2", {"ENGINE": STANDARD}),
    "standard on psycopg 3": ("psycopg", {"ENGINE": STANDARD}),
}
pytestmark = pytest.mark.django_db


def fork_under_reports(strategy: str, count: int, redis_url: str, redis_pid: int = 0) -> dict[str, Any]:
    """Run tests/integration/forking.py; return its output."""
    driver, database = STRATEGIES[strategy]
    own = connection.settings_dict
    server = {key: own[key] for key in ("NAME", "HOST", "PORT", "USER", "PASSWORD")}
    given = {
        "database": {**server, **database},
        "redis_url": redis_url,
        "driver": driver,
        "count": count,
        "redis_pid": redis_pid,
    }
    environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{CHECKOUT / 'backend'}"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    answer = subprocess.run(
        [sys.executable, str(CHECKOUT / "tests/integration/forking.py"), json.dumps(given)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    printed: dict[str, Any] = json.loads(answer.stdout)
    return printed


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_forked_child_reports(servers: Place, strategy: str) -> None:
    printed = fork_under_reports(strategy, 200, read(Queue).url)
    assert printed["statuses"] == [0] * 200
    assert printed["imports"] == []


@pytest.fixture
def redis_server(servers: Place, tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A Redis of the test's own, and its URL."""
    (port,) = free_ports(1)
    queue = read(Queue).model_copy(update={"redis_port": port})
    own = Place(servers.root, tmp_path / "servers", die_with_parent=True)
    own.data.mkdir()
    server = broker(own, queue)
    server.start()
    yield server, queue.url
    if server.pid:
        os.kill(server.pid, signal.SIGCONT)
    server.stop()


def test_a_fork_does_not_wait_for_a_redis_that_does_not_answer_and_its_children_report_later(
    redis_server: tuple[Server, str],
) -> None:
    server, url = redis_server
    assert server.pid
    printed = fork_under_reports("native", 2, url, server.pid)
    assert printed == {"statuses": [0, 0], "imports": []}
