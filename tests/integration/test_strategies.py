"""Every way to keep connections tells the same facts, as far as it has them; each in a process of its own."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from config.env import CHECKOUT
from sandbox.servers import Place

# Two connections are held at once, one is returned, and the state is told while the other is held.
SCRIPT = """
import json, sys
from config.start import start
start("web")
import django
django.setup()
from django.db import connections
from poolhouse.process.pools import pool_states
first, second = (connections.create_connection("default") for _ in range(2))
for wrapper in (first, second):
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.05)")
second.close()
(state,) = pool_states()
print(json.dumps({**state.as_document(), "driver": first.Database.__name__}))
"""


def state_with(strategy: str) -> dict[str, Any]:
    environment = {
        **os.environ,
        "DB_STRATEGY": strategy,
        "DB_NAME": "postgres",
        "DB_MAX_CONNS_DEV": "4",
        "DB_MAX_OVERFLOW_DEV": "1",
        "DB_MIN_CONNS": "1",
        "CELERY_WORKER_RUNNING": "",
    }
    command = [sys.executable, "-c", SCRIPT]
    answer = subprocess.run(command, cwd=CHECKOUT / "backend", env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    state: dict[str, Any] = json.loads(answer.stdout)
    return state


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("poolhouse", ("psycopg2", "queuepool", 4, 5)),
        ("dj_db_conn_pool", ("psycopg2", "queuepool", 4, 5)),
        ("native", ("psycopg", "native", 1, 5)),
        ("persistent", ("psycopg2", "per-thread", None, None)),
        ("none", ("psycopg2", "per-thread", None, None)),
    ],
)
def test_it_tells_its_facts(servers: Place, strategy: str, expected: tuple[str, str, int | None, int | None]) -> None:
    state = state_with(strategy)
    assert (state["driver"], state["kind"], state["size"], state["max"]) == expected
    assert state["in_use"] == 1
    if state["kind"] != "per-thread":
        assert state["idle"] >= 1
    if strategy != "dj_db_conn_pool":  # which counts nothing
        assert state["counts"]["connects"] >= 2
    if strategy in ("poolhouse", "native"):
        assert state["counts"]["lent"] == 2
        assert state["wait"]["count"] == 2
        assert state["waiting"] == 0
    assert (state["hold"] is not None) == (strategy == "poolhouse")
