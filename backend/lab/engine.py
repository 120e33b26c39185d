"""What does the engine cost per request? One query per request, gunicorn with 2 processes of 8 threads for each pool.

poolhouse      this project's engine, with its pre-ping of idle connections
leaks          the same with leak detection, which records the stack of each checkout
plain          dj_db_conn_pool without pre-ping
plain_ping     dj_db_conn_pool with its pre-ping at every checkout
native         Django's own pool on psycopg 3, without a health check
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from config.env import Database, Monitor, Servers, read
from lab.generator import Closed, loading
from lab.observation import pass_window
from lab.web import Model, Web, gunicorn, running
from sandbox.isolation import superuser_sql
from sandbox.servers import Place, timescale

PROCESSES, THREADS = 2, 8
CLIENTS = PROCESSES * THREADS
MODEL = Model("gunicorn gthread", PROCESSES, 1, THREADS, gunicorn(application="lab.bare_wsgi:application"))
TURN_S = 0.8

WAYS = {
    "poolhouse": {"DB_POOL_STRATEGY": "queuepool", "DB_CONN_HEALTH_CHECKS": "true"},
    "leaks": {"DB_POOL_STRATEGY": "queuepool", "DB_CONN_HEALTH_CHECKS": "true", "POOLHOUSE_LEAK_THRESHOLD_S": "30"},
    "plain": {"DB_POOL_STRATEGY": "dj_db_conn_pool", "DB_CONN_HEALTH_CHECKS": "false"},
    "plain_ping": {"DB_POOL_STRATEGY": "dj_db_conn_pool", "DB_CONN_HEALTH_CHECKS": "true"},
    "native": {"DB_POOL_STRATEGY": "native", "DB_CONN_HEALTH_CHECKS": "false"},
}
LABELS = {
    "poolhouse": "poolhouse's engine",
    "leaks": "…, leak detection",
    "plain": "dj_db_conn_pool",
    "plain_ping": "dj_db_conn_pool, pre-ping",
    "native": "Django's native pool",
}
SETTINGS = {
    "POOLHOUSE_LEAK_THRESHOLD_S": "0",
    "DB_MAX_CONNS_DEV": str(THREADS),
    "DB_MAX_OVERFLOW_DEV": "0",
    "DB_MIN_CONNS": str(THREADS),
}


def make_room(place: Place) -> None:
    """Allow the connections of all pools at once, so that they can be measured in short turns."""
    server = timescale(place, read(Database), read(Monitor), read(Servers))
    superuser_sql(f"ALTER SYSTEM SET max_connections = {len(WAYS) * CLIENTS + 20}")
    server.stop()
    server.start()


@contextmanager
def webs(folder: Path) -> Iterator[dict[str, Web]]:
    """Run a web server for each pool, for the length of a block."""
    with ExitStack() as started:
        yield {
            way: started.enter_context(running(MODEL, {**SETTINGS, **chosen}, folder / "log" / f"{way}.log"))
            for way, chosen in WAYS.items()
        }


@dataclass(frozen=True)
class Turn:
    """The result of a turn."""

    requests_per_s: float
    processor_us: float
    """of the web server's processes, for each request"""


def take_turn(way: str, web: Web) -> Turn:
    """Measure a web server in a closed loop.

    Raises:
        RuntimeError: a request failed.
    """
    with loading(web.urls("one"), Closed(CLIENTS)) as under_way:
        under_way.warm_up()
        window = pass_window(TURN_S, {way: web.pids})
        answers = under_way.answers(window.begin_s, window.end_s)
    failed = answers.statuses.total() - answers.good + answers.unanswered
    if failed:
        raise RuntimeError(
            f"{way}: {failed} requests failed or were not answered; answers by status: {dict(answers.statuses)}"
        )
    return Turn(answers.good / answers.duration_s, window.processor_s[way] / answers.good * 1e6)
