"""Every way to keep connections passes the same tests, save what its row says that it breaks, and that does break.

Each is tried in a process of its own, on a real PgBouncer where it goes through one.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from config.env import CHECKOUT, Database, Monitor, read
from config.strategies import STRATEGIES, as_table
from sandbox.isolation import connect
from sandbox.servers import Place, Server, pgbouncer
from tests import forked
from tests.integration.session_probes import PROBES, ROWS, STATEMENT_TIMEOUT_S
from tests.plugin import superuser_sql

NAME = "strategies"
Outcomes = Callable[[str], dict[str, str]]


@pytest.fixture(scope="module")
def database(servers: Place) -> Iterator[Database]:
    """A database of these tests' own, whose timeout is short."""
    timeout_ms = STATEMENT_TIMEOUT_S * 1000
    made = read(Database).model_copy(update={"db_name": NAME, "db_statement_timeout": timeout_ms})
    superuser_sql(f"CREATE DATABASE {NAME} OWNER {made.db_user} TEMPLATE template0")
    with connect(made) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE number AS SELECT id FROM generate_series(1, {ROWS}) AS id")
        cursor.execute("CREATE TABLE note (text text)")
    connection.close()
    yield made
    superuser_sql(f"DROP DATABASE {NAME} WITH (FORCE)")


@pytest.fixture(scope="module")
def pooler(servers: Place, database: Database) -> Iterator[Server]:
    """A PgBouncer in front of it."""
    server = pgbouncer(servers, database, read(Monitor))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def outcomes(pooler: Server) -> Outcomes:
    """Try every probe on a strategy, once; give what went wrong in each."""

    @cache
    def of(strategy: str) -> dict[str, str]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "backend")]),
            "DB_POOL_STRATEGY": strategy,
            "DB_NAME": NAME,
            "DB_STATEMENT_TIMEOUT": str(STATEMENT_TIMEOUT_S * 1000),
            # So that a request gets the connection that the one before has left.
            "DB_MAX_CONNS_DEV": "1",
            "DB_MAX_OVERFLOW_DEV": "0",
            "CELERY_WORKER_RUNNING": "",
            "SERVICE_NAME": "",
        }
        # Not forked: the names of Django's cursors have the number of a thread, which forked processes have in common.
        command = [sys.executable, "-m", "tests.integration.session_probes"]
        answer = subprocess.run(command, env=environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=600)
        assert answer.returncode == 0, answer.stderr
        found: dict[str, str] = json.loads(answer.stdout)
        return found

    return of


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_passes_or_breaks_as_its_row_says(outcomes: Outcomes, strategy: str, probe: str) -> None:
    tried, outcome = PROBES[probe], outcomes(strategy)[probe]
    if tried.feature in STRATEGIES[strategy].breaks:
        assert re.search(tried.broken, outcome), f"the row says that it breaks {tried.feature}, and it gave {outcome!r}"
    else:
        assert outcome == "", f"the row does not say that it breaks {tried.feature}"


def test_every_feature_that_a_row_can_break_is_tried() -> None:
    tried = {probe.feature for probe in PROBES.values()}
    assert {feature for row in STRATEGIES.values() for feature in row.breaks} <= tried


def test_the_manual_s_table_is_the_rows() -> None:
    manual = (CHECKOUT / "docs/configuration.md").read_text()
    assert as_table() in manual, f"mend the table of strategies in docs/configuration.md:\n{as_table()}"


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
        "DB_POOL_STRATEGY": strategy,
        "DB_NAME": "postgres",
        "DB_MAX_CONNS_DEV": "4",
        "DB_MAX_OVERFLOW_DEV": "1",
        "DB_MIN_CONNS": "1",
        "CELERY_WORKER_RUNNING": "",
    }
    answer = forked.run(["-c", SCRIPT], cwd=CHECKOUT / "backend", env=environment)
    assert answer.returncode == 0, answer.stderr
    state: dict[str, Any] = json.loads(answer.stdout)
    return state


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("queuepool", ("psycopg2", "queuepool", 4, 5)),
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
    if strategy in ("queuepool", "native"):
        assert state["counts"]["lent"] == 2
        assert state["wait"]["count"] == 2
        assert state["waiting"] == 0
    assert (state["hold"] is not None) == (strategy == "queuepool")
