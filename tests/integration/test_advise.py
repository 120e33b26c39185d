"""`db_pool_advise` on a pool under load: the measured load, and whether callers wait as long as predicted."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError
from django.db import DEFAULT_DB_ALIAS, connections

from config.database import get_pgbouncer_connections, get_strategy, numbers_of
from config.env import SECTIONS, Database, read
from config.strategies import STRATEGIES
from poolhouse.engines.postgresql.base import DatabaseWrapper
from poolhouse.reports.publisher import Publisher
from poolhouse.reports.store import store
from poolhouse.sizing.queue import Holds, Load, pool_of
from sandbox.isolation import free_ports
from tests.integration.conftest import run
from tests.simulation import Draw, exponential, log_normal, quantile, waits_s

CONNECTIONS = 4
# Threads of a load: more than are ever in the pool and waiting for it, so that nobody comes late.
THREADS = 40
POINTS = [(utilisation, hold) for utilisation in (0.5, 0.65, 0.8) for hold in (exponential, log_normal)]
# A wait ends when the caller is awake, which a busy machine delays: the p95 by a millisecond or two where its two
# processors had several times the work that they can do. A quarter of the shortest p95 at these holds is 20 ms or more.
HOLD_S, SPAN_S = 0.15, 30.0
# Any draw would do, since the simulation is given the very callers that came, but for a p95 that is nearly nothing.
FIRST_SEED = 4
TOLERANCE = 0.25


@dataclass(frozen=True)
class Seen:
    """A caller and its measurements; in seconds since the load began."""

    asked_at: float
    lent_at: float
    returned_at: float
    over_at: float
    """when it had checked its connection in"""
    connection: int
    """the server process of its connection"""

    @property
    def wait_s(self) -> float:
        return self.lent_at - self.asked_at

    @property
    def held_s(self) -> float:
        return self.returned_at - self.lent_at

    @property
    def busy_s(self) -> float:
        return self.over_at - self.asked_at


JSON_KEYS = ["schema", "load", "measured", "target", "burst", "process", "fleet", "pgbouncer", "cores"]
JSON_KEYS += ["connections_by_cores", "plan", "warnings"]
GIVEN = ("--rate", "60", "--hold-ms", "25", "--max-connections", "100")


@pytest.fixture(autouse=True)
def _database(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def reporting(configure: Callable[..., None]) -> Iterator[None]:
    """Store the reports of this process apart from those of other tests."""
    configure(KEY_PREFIX=f"advise-{time.monotonic_ns()}")
    store.cache_clear()
    yield
    store.cache_clear()


@contextmanager
def open_pool(alias: str) -> Iterator[str]:
    """Return an alias of the test database with an open pool."""
    from dj_db_conn_pool.core import pool_container

    template = connections[DEFAULT_DB_ALIAS].settings_dict
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
    del pool_container[alias], connections.settings[alias]


@pytest.fixture
def pooled() -> Iterator[str]:
    with open_pool("advised") as alias:
        yield alias
        del connections[alias]


@pytest.fixture(scope="module")
def played(django_db_setup: None, django_db_blocker: Any) -> dict[tuple[float, Draw], list[Seen]]:
    """Return the measurements of callers at each point, on one pool each, all at the same time: they mostly sleep."""
    with django_db_blocker.unblock(), ExitStack() as open_, ThreadPoolExecutor(len(POINTS)) as aside:
        plays = {
            point: aside.submit(play, open_.enter_context(open_pool(f"played-{seed}")), draw(*point, SPAN_S, seed))
            for seed, point in enumerate(POINTS, FIRST_SEED)
        }
        return {point: under_way.result() for point, under_way in plays.items()}


@contextmanager
def publishing() -> Iterator[None]:
    """Report every 0.2 s, as the background thread does every second."""
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


def draw(utilisation: float, hold: Draw, span_s: float, seed: int) -> list[tuple[float, float]]:
    """Return the times of arrival and the hold times of callers."""
    chance = np.random.default_rng(seed)
    rate_per_s = CONNECTIONS * utilisation / HOLD_S
    count = chance.poisson(rate_per_s * span_s)
    times = np.sort(chance.uniform(0, span_s, count))
    return list(zip(times.tolist(), (HOLD_S * hold(chance, count)).tolist(), strict=True))


def play(alias: str, callers: list[tuple[float, float]], after_s: float = 0.5) -> list[Seen]:
    """Let callers arrive on time, however many are waiting."""
    seen: list[Seen] = []
    left, lock = iter(callers), threading.Lock()
    begun_at = time.perf_counter() + after_s

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
            connection = wrapper.connection.info.backend_pid
            returned_at = time.perf_counter()
            wrapper.close()
            over_at = time.perf_counter()
            moments = (asked_at, lent_at, returned_at, over_at)
            asked_s, lent_s, returned_s, over_s = (moment - begun_at for moment in moments)
            seen.append(Seen(asked_s, lent_s, returned_s, over_s, connection))

    with ThreadPoolExecutor(THREADS) as threads:
        for served in [threads.submit(serve) for _ in range(THREADS)]:
            served.result()
    return seen


def taken(seen: list[Seen]) -> list[tuple[float, float]]:
    """Return when callers arrived, and for how long their connections were in use.

    A connection is its next caller's from when the one before returned it, not from when that caller is awake.
    """
    returned_at: dict[int, float] = {}
    found = []
    for one in sorted(seen, key=lambda one: one.lent_at):
        since = max(one.asked_at, returned_at.get(one.connection, 0.0))
        found.append((one.asked_at, one.returned_at - since))
        returned_at[one.connection] = one.returned_at
    return sorted(found)


def simulated_p95_s(size: int, seen: list[Seen]) -> float:
    """Return the simulated waits of the callers that were measured, for a pool of this size."""
    callers = taken(seen)
    after_s = [callers[0][0], *(at - earlier for (earlier, _), (at, _) in pairwise(callers))]
    return quantile(waits_s(size, zip(after_s, (held_s for _, held_s in callers), strict=True)), 0.95)


@pytest.mark.parametrize(("utilisation", "hold"), POINTS)
def test_callers_of_a_real_pool_wait_as_long_as_in_the_simulation(
    utilisation: float, hold: Draw, played: dict[tuple[float, Draw], list[Seen]]
) -> None:
    seen = played[utilisation, hold]
    p95_s = quantile((one.wait_s for one in seen), 0.95)
    assert p95_s == pytest.approx(simulated_p95_s(CONNECTIONS, seen), rel=TOLERANCE)
    for other in (CONNECTIONS - 1, CONNECTIONS + 1):
        assert p95_s != pytest.approx(simulated_p95_s(other, seen), rel=TOLERANCE), "any pool would have passed"


def test_the_measured_load_equals_the_generated_one(reporting: None, pooled: str) -> None:
    callers = draw(0.8, exponential, 4, seed=1)
    with publishing(), ThreadPoolExecutor(1) as aside:
        load = aside.submit(play, pooled, callers, after_s=2)
        document = json.loads(run("db_pool_advise", "--database", pooled, "--over", "10", "--json", *GIVEN[4:]))
        seen = load.result()
    measured, found = document["measured"], document["load"]
    assert (measured["service"], measured["processes"], measured["connections"]) == ("tests", 1, CONNECTIONS)
    assert measured["lent"] == len(callers)
    assert found["rate_per_s"] == pytest.approx(len(callers) / measured["elapsed_s"])
    # The pool's clock goes on when the caller's has stopped, and the caller's when the pool's has.
    assert mean(one.held_s for one in seen) <= found["hold"]["mean_s"] <= mean(one.busy_s for one in seen)
    assert 0.1 < found["hold"]["cv2"] < 10, "an exponential distribution has 1"
    p95_s = quantile((one.wait_s for one in seen), 0.95)
    assert 0 < measured["wait"]["p95_s"] <= 1.15 * p95_s, "the pool's own, in buckets"
    pool = pool_of(Load(found["rate_per_s"], Holds(**found["hold"])), CONNECTIONS)
    assert measured["predicted_wait"]["p95_s"] == pytest.approx(pool.wait_s(0.95))


def test_the_advice_for_a_given_load_is_printed() -> None:
    text = run("db_pool_advise", *GIVEN, "--hosts", "4", "--processes", "4", "--threads", "8", "--workers", "2")
    lines = [line.split() for line in text.splitlines()]
    assert ["POOL_SIZE", "5", "DB_MAX_CONNS", "60", "checkouts/s"] in [line[:5] for line in lines]
    assert ["MIN_SIZE", "4", "DB_MIN_CONNS"] in [line[:3] for line in lines]
    assert ["MAX_OVERFLOW", "0", "DB_MAX_OVERFLOW"] in [line[:3] for line in lines]
    assert ["usable", "max_connections", "100", "−", "3", "reserved", "97"] in lines
    assert "PgBouncer is needed soon: the fleet can open 86 of the 97" in text
    assert "max_client_conn" in text
    assert "Plan" not in text
    assert "\x1b" not in text, "colour is for terminals"


def test_the_plan_has_a_line_for_each_size() -> None:
    text = run("db_pool_advise", *GIVEN, "--transaction-ms", "1", "--plan")
    plan = text.partition("Plan, with the same load")[2]
    assert [line.split()[0] for line in plan.splitlines()[2:6]] == ["10", "100", "1,000", "10,000"]
    assert "One process is assumed to serve 5,000 clients and 20,000" in plan


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


@pytest.mark.parametrize(("hosts", "pool_mode"), [(1, None), (5, "transaction")])
def test_env_lines_follow_the_verdict(hosts: int, pool_mode: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run("db_pool_advise", *GIVEN, "--hosts", str(hosts), "--processes", "5", "--env").splitlines()
    given = dict(line.split("=") for line in lines)
    assert {name.lower() for name in given} <= {name for section in SECTIONS for name in section.model_fields}
    for name in ("USE_PGBOUNCER", "PGBOUNCER_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"DB_POOL_STRATEGY": "queuepool", **given}.items():
        monkeypatch.setenv(name, value)
    assert STRATEGIES[get_strategy()].pool_mode == pool_mode
    numbers = numbers_of(read(Database), development=False)
    assert (numbers.size, numbers.least, numbers.overflow, numbers.timeout_s) == (5, 4, 0, 2)
    assert get_pgbouncer_connections() == int(given.get("PGBOUNCER_POOL_SIZE", 0)) <= 96


def test_without_reports_the_error_names_the_options(configure: Callable[..., None], reporting: None) -> None:
    configure(REDIS_URL="")
    store.cache_clear()
    with pytest.raises(CommandError, match=r"REDIS_URL'\] is not set.*or pass --rate \(.*and --hold-ms"):
        run("db_pool_advise")
    (port,) = free_ports(1)
    configure(REDIS_URL=f"redis://127.0.0.1:{port}/0")
    store.cache_clear()
    with pytest.raises(CommandError, match=r"cannot read the reports from Redis: .*refused.*or pass --rate"):
        run("db_pool_advise", "--hold-ms", "5")


def test_without_load_the_error_says_what_to_do(reporting: None, pooled: str) -> None:
    with (
        publishing(),
        pytest.raises(CommandError, match=r"no connection of 'advised' was checked out.*put load on the service"),
    ):
        run("db_pool_advise", "--database", pooled, "--over", "1")


def test_without_the_server_the_error_names_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings[DEFAULT_DB_ALIAS], "PORT", "1")
    with pytest.raises(
        CommandError, match=r"cannot read max_connections from the server: .*refused.*or pass --max-connections"
    ):
        run("db_pool_advise", *GIVEN[:4])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--rate", "0"), "expected a number from 0.001 to 1,000,000, got '0'"),
        (("--rate", "nan"), "expected a number from 0.001 to 1,000,000, got 'nan'"),
        (("--hosts", "0"), "expected a whole number from 1 to 1,000,000, got '0'"),
        (("--percentile", "100"), "expected a number from 50 to 99.99, got '100'"),
        (("--hold-cv2", "1"), "require --hold-ms"),
        (("--rate", "1", "--hold-ms", "10", "--hold-p95-ms", "5"), "from 10 to 38.68 ms, got 5 ms; or pass --hold-cv2"),
        (("--rate", "9999", "--hold-ms", "500"), "is 5,000 connections in use in one process .maximum 1,000.: "),
        ((*GIVEN, "--reserved", "100"), "--reserved 100 must be less than --max-connections 100"),
        (("--database", "nowhere"), "--database: expected the alias of a PostgreSQL database, got 'nowhere'"),
    ],
)
def test_invalid_options_are_rejected_with_what_is_allowed(arguments: tuple[str, ...], problem: str) -> None:
    with pytest.raises(CommandError, match=problem) as refused:
        run("db_pool_advise", *arguments)
    assert refused.value.returncode == 2 or "argument" in str(refused.value)
