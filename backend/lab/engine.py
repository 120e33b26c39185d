"""What does the engine cost a request? One query a request, gunicorn with 2 processes of 8 threads for each way.

poolhouse      this project's engine, with its ping of what has lain idle
leaks          the same, noting the stack that takes each connection
plain          dj_db_conn_pool without a ping
plain, ping    dj_db_conn_pool with its ping at every checkout
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
    "leaks": "…, looking for leaks",
    "plain": "dj_db_conn_pool",
    "plain_ping": "dj_db_conn_pool, ping",
    "native": "Django's native pool",
}
SETTINGS = {
    "POOLHOUSE_LEAK_THRESHOLD_S": "0",
    "DB_MAX_CONNS_DEV": str(THREADS),
    "DB_MAX_OVERFLOW_DEV": "0",
    "DB_MIN_CONNS": str(THREADS),
}


def make_room(place: Place) -> None:
    """Let the server take the connections of all ways at once, so that they can be measured in short turns."""
    server = timescale(place, read(Database), read(Monitor), read(Servers))
    superuser_sql(f"ALTER SYSTEM SET max_connections = {len(WAYS) * CLIENTS + 20}")
    server.stop()
    server.start()


@contextmanager
def webs(folder: Path) -> Iterator[dict[str, Web]]:
    """Run a web for each way, for the length of a block."""
    with ExitStack() as started:
        yield {
            way: started.enter_context(running(MODEL, {**SETTINGS, **chosen}, folder / "log" / f"{way}.log"))
            for way, chosen in WAYS.items()
        }


@dataclass(frozen=True)
class Turn:
    """What a web did in a turn."""

    requests_per_s: float
    processor_us: float
    """of the web's processes, for each request"""


def take_turn(way: str, web: Web) -> Turn:
    """Ask a web as fast as it answers.

    Raises:
        RuntimeError: a request failed.
    """
    with loading(web.urls("one"), Closed(CLIENTS)) as under_way:
        under_way.warm_up()
        window = pass_window(TURN_S, {way: web.pids})
        answers = under_way.answers(window.begin_s, window.end_s)
    failed = answers.statuses.total() - answers.good + answers.unanswered
    if failed:
        raise RuntimeError(f"{way}: {failed} requests had no good answer; the statuses: {dict(answers.statuses)}")
    return Turn(answers.good / answers.duration_s, window.processor_s[way] / answers.good * 1e6)
