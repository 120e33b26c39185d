"""`db_pool_advise` on a pool at work: what it measures, and whether callers wait as long as it says."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from django.core.management import CommandError
from django.db import DEFAULT_DB_ALIAS, connections

from config.env import SECTIONS
from poolhouse.engines.postgresql.base import DatabaseWrapper
from poolhouse.reports.publisher import Publisher
from poolhouse.reports.store import store
from sandbox.isolation import free_ports
from tests.integration.conftest import run
from tests.simulation import quantile, waits_s

CONNECTIONS = 6
# Threads of the load: more than are ever in the pool and waiting for it, so that nobody comes late.
THREADS = 60
HOLD_S, UTILISATION, SPAN_S = 0.04, 0.7, 32.0
# A draw of this length is off by 15 % by luck alone. Of this one, the simulated p95 is the formula's: what the test
# looks at is the pool.
SEED = 7
JSON_KEYS = ["schema", "load", "measured", "target", "burst", "process", "fleet", "pgbouncer", "cores"]
JSON_KEYS += ["connections_by_cores", "plan", "warnings"]
GIVEN = ("--rate", "60", "--hold-ms", "25", "--max-connections", "100")


@pytest.fixture(autouse=True)
def _database(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def reporting(configure: Callable[..., None]) -> Iterator[None]:
    """Reports of this process, apart from those of other tests."""
    configure(KEY_PREFIX=f"advise-{time.monotonic_ns()}")
    store.cache_clear()
    yield
    store.cache_clear()


@pytest.fixture
def pooled() -> Iterator[str]:
    """An alias of the test database with a pool that is open."""
    from dj_db_conn_pool.core import pool_container

    alias, template = "advised", connections[DEFAULT_DB_ALIAS].settings_dict
    connections.settings[alias] = {
        **template,
        "ENGINE": "poolhouse.engines.postgresql",
        "CONN_MAX_AGE": 0,
        "POOL_OPTIONS": {"POOL_SIZE": CONNECTIONS, "MAX_OVERFLOW": 0, "MIN_SIZE": CONNECTIONS},
    }
    wrapper = connections.create_connection(alias)
    assert isinstance(wrapper, DatabaseWrapper)
    wrapper.keep_warm()
    yield alias
    pool_container.get(alias).dispose()
    del pool_container[alias], connections[alias], connections.settings[alias]


@contextmanager
def publishing() -> Iterator[None]:
    """Report every 0.2 s, as the keeper's thread does every second."""
    found = store()
    assert found is not None
    publisher, is_over = Publisher(found), threading.Event()

    def publish() -> None:
        publisher.publish()
        while not is_over.wait(0.2):
            publisher.publish()

    publisher.publish()
    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        publisher.withdraw()


def draw(span_s: float, seed: int) -> list[tuple[float, float]]:
    """When callers come, and how long they sleep with their connection."""
    chance = random.Random(seed)
    rate_per_s = CONNECTIONS * UTILISATION / HOLD_S
    callers, at = [], chance.expovariate(rate_per_s)
    while at < span_s:
        callers.append((at, chance.expovariate(1 / HOLD_S)))
        at += chance.expovariate(rate_per_s)
    return callers


def play(alias: str, callers: list[tuple[float, float]]) -> list[tuple[float, float, float]]:
    """Let callers come when they should, whoever still waits; give when each came, its wait and its hold."""
    seen: list[tuple[float, float, float]] = []
    left, lock = iter(callers), threading.Lock()
    begun_at = time.perf_counter() + 0.1

    def serve() -> None:
        wrapper = connections.create_connection(alias)
        while True:
            with lock:
                caller = next(left, None)
            if caller is None:
                return
            time.sleep(max(0.0, begun_at + caller[0] - time.perf_counter()))
            asked_at = time.perf_counter()
            wrapper.ensure_connection()
            lent_at = time.perf_counter()
            with wrapper.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(%s)", [caller[1]])
            wrapper.close()
            seen.append((asked_at - begun_at, lent_at - asked_at, time.perf_counter() - lent_at))

    with ThreadPoolExecutor(THREADS) as threads:
        for served in [threads.submit(serve) for _ in range(THREADS)]:
            served.result()
    return sorted(seen)


def after_each_other(callers: list[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Write arrivals as the time since the one before."""
    yield callers[0]
    for (earlier, _), (at, held_s) in pairwise(callers):
        yield at - earlier, held_s


def test_callers_wait_as_long_as_the_model_and_its_simulation_say(reporting: None, pooled: str) -> None:
    callers = draw(SPAN_S + 2, SEED)
    with publishing(), ThreadPoolExecutor(1) as aside:
        load = aside.submit(play, pooled, callers)
        document = json.loads(run("db_pool_advise", "--database", pooled, "--over", str(SPAN_S), "--json", *GIVEN[4:]))
        seen = load.result()
    measured, waits = document["measured"], [wait_s for _, wait_s, _ in seen]
    assert (measured["service"], measured["processes"], measured["connections"]) == ("tests", 1, CONNECTIONS)
    assert document["load"]["rate_per_s"] == pytest.approx(CONNECTIONS * UTILISATION / HOLD_S, rel=0.1)
    assert document["load"]["hold"]["mean_s"] == pytest.approx(HOLD_S, rel=0.1)
    assert document["load"]["hold"]["cv2"] == pytest.approx(1, rel=0.2)

    replayed = quantile(waits_s(CONNECTIONS, after_each_other([(at, held_s) for at, _, held_s in seen])), 0.95)
    predicted, p95 = measured["predicted_wait"]["p95_s"], quantile(waits, 0.95)
    assert measured["wait"]["p95_s"] == pytest.approx(p95, rel=0.15), "the pool's own figure, in buckets"
    assert replayed == pytest.approx(p95, rel=0.15), "the simulation of the very callers that came"
    assert predicted == pytest.approx(p95, rel=0.25)


def test_a_load_that_is_given_is_advised_on_in_words() -> None:
    text = run("db_pool_advise", *GIVEN, "--hosts", "4", "--processes", "4", "--threads", "8", "--workers", "2")
    lines = [line.split() for line in text.splitlines()]
    assert ["POOL_SIZE", "4", "DB_MAX_CONNS", "60", "lent/s"] in [line[:5] for line in lines]
    assert ["room", "max_connections", "100", "−", "3", "reserved", "97"] in lines
    assert "PgBouncer is due soon: the fleet can open 86 of 97" in text
    assert "max_client_conn" in text
    assert "Plan" not in text
    assert "\x1b" not in text, "colour is for terminals"


def test_the_plan_has_a_line_for_each_size() -> None:
    text = run("db_pool_advise", *GIVEN, "--transaction-ms", "1", "--plan")
    plan = text.partition("Plan, with the same load")[2]
    assert [line.split()[0] for line in plan.splitlines()[2:6]] == ["10", "100", "1,000", "10,000"]
    assert "5,000 clients and 20,000 transactions/s: an assumption" in plan


def test_json_has_every_key_that_is_documented_and_the_server_s_own_room() -> None:
    document = json.loads(run("db_pool_advise", *GIVEN[:4], "--hold-p95-ms", "60", "--plan", "--json"))
    assert list(document) == JSON_KEYS
    assert (document["schema"], document["measured"]) == (1, None)
    assert document["load"]["rate_per_s"] == 60
    assert document["load"]["hold"]["mean_s"] == 0.025
    assert 0 < document["load"]["hold"]["cv2"] < 1
    with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int"
            " + current_setting('reserved_connections')::int"
        )
        assert (document["fleet"]["max_connections"], document["fleet"]["reserved"]) == cursor.fetchone()
    assert [row["web_processes"] for row in document["plan"]] == [10, 100, 1000, 10000]


def test_env_lines_are_what_the_settings_read() -> None:
    text = run("db_pool_advise", *GIVEN, "--hosts", "5", "--processes", "5", "--env")
    lines = dict(line.split("=") for line in text.splitlines())
    assert {name: int(lines[name]) for name in ("DB_MAX_CONNS", "DB_MAX_OVERFLOW", "DB_POOL_TIMEOUT")} == {
        "DB_MAX_CONNS": 4,
        "DB_MAX_OVERFLOW": 1,
        "DB_POOL_TIMEOUT": 2,
    }
    assert int(lines["PGBOUNCER_POOL_SIZE"]) + int(lines["PGBOUNCER_RESERVE_POOL_SIZE"]) <= 96
    assert {name.lower() for name in lines} <= {name for section in SECTIONS for name in section.model_fields}


def test_without_reports_it_says_what_to_give(configure: Callable[..., None], reporting: None) -> None:
    configure(REDIS_URL="")
    store.cache_clear()
    with pytest.raises(CommandError, match=r"REDIS_URL'\] is not set.*or give --rate \(.*and --hold-ms"):
        run("db_pool_advise")
    (port,) = free_ports(1)
    configure(REDIS_URL=f"redis://127.0.0.1:{port}/0")
    store.cache_clear()
    with pytest.raises(CommandError, match=r"does not answer: .*refused.*or give --rate"):
        run("db_pool_advise", "--hold-ms", "5")


def test_without_load_it_says_what_to_do(reporting: None, pooled: str) -> None:
    with publishing(), pytest.raises(CommandError, match=r"no connection of 'advised' was lent.*Put load on it"):
        run("db_pool_advise", "--database", pooled, "--over", "1")


def test_without_the_server_it_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings[DEFAULT_DB_ALIAS], "PORT", "1")
    with pytest.raises(CommandError, match=r"the server does not answer: .*refused.*or give --max-connections"):
        run("db_pool_advise", *GIVEN[:4])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--rate", "0"), "'0' is no number from 0.001 to 1,000,000"),
        (("--rate", "nan"), "'nan' is no number"),
        (("--hosts", "0"), "'0' is no whole number from 1 to 1,000,000"),
        (("--percentile", "100"), "'100' is no number from 50 to 99.99"),
        (("--hold-cv2", "1"), "give --hold-ms too"),
        (("--rate", "1", "--hold-ms", "10", "--hold-p95-ms", "5"), "allowed: from 10 to 38.68 ms; or give --hold-cv2"),
        (("--rate", "9999", "--hold-ms", "500"), "keep 5,000 connections in use in one process; allowed: 1,000"),
        ((*GIVEN, "--reserved", "100"), "--reserved 100 leaves nothing of --max-connections 100"),
        (("--database", "nowhere"), "--database nowhere: no PostgreSQL alias of DATABASES"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_is_allowed(arguments: tuple[str, ...], problem: str) -> None:
    with pytest.raises(CommandError, match=problem) as refused:
        run("db_pool_advise", *arguments)
    assert refused.value.returncode == 2 or "argument" in str(refused.value)
