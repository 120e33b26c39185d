"""Every strategy under every load: a web server for each, its database, its pooler, turn by turn."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import Any

from django.db import connection
from rich.console import Console

from config.env import Database, Monitor, Pooler, Servers, read
from config.strategies import STRATEGIES
from lab.generator import PATIENCE_S, WARM_UP_MOST_S, WARM_UP_S, Closed, Constant, Load
from lab.matrix import Cell, Journal, Plan, Stand, Turn
from lab.observation import Site, observe
from lab.progress import Progress
from lab.waits import console
from lab.watch import Watcher
from lab.web import MODELS, running
from sandbox.servers import Place, pgbouncer, timescale

POOL_TIMEOUT_S = 0.5
"""how long a request waits for a connection, in a pool or in PgBouncer"""
METHOD = 3
"""changes with the method of measurement: turns of another method do not mix"""

LIMITS = """
SELECT current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int + current_setting('reserved_connections')::int
"""


def conditions(plan: Plan) -> dict[str, Any]:
    """Return the conditions that all turns of a plan share, as JSON data; the server must run."""
    with connection.cursor() as cursor:
        cursor.execute(LIMITS)
        most, reserved = cursor.fetchone()
    connection.close()  # only what is measured may have connections
    return {
        **plan.conditions,
        "method": METHOD,
        "models": {name: model.label for name, model in MODELS.items()},
        "warm_up_s": {"least": WARM_UP_S, "most": WARM_UP_MOST_S},
        "patience_s": PATIENCE_S,
        "pool_timeout_s": POOL_TIMEOUT_S,
        "pgbouncer_wait_s": POOL_TIMEOUT_S,
        "max_connections": most,
        "server_room": most - reserved - 1,  # the watcher's
    }


def variables(stand: Stand, plan: Plan) -> dict[str, str]:
    """Return the environment of a web server: the same number of connections for every strategy."""
    each = max(1, plan.connections // MODELS[stand.model].processes_in_all)
    return {
        "DB_POOL_STRATEGY": stand.strategy,
        "DJANGO_ENV": "production",
        "REQUIRE_HTTPS": "false",
        "DB_MAX_CONNS": str(each),
        "DB_MAX_OVERFLOW": "0",
        "DB_MIN_CONNS": "1",
        "DB_POOL_TIMEOUT": str(POOL_TIMEOUT_S),
        "DB_CONN_HEALTH_CHECKS": str(plan.health_checks),
        "POOLHOUSE_PUBLISH_INTERVAL_S": "0.2",
        "POOLHOUSE_REPORT_TTL_S": "2",
        "POOLHOUSE_LEAK_THRESHOLD_S": "0",
    }


def measure(plan: Plan, journal: Journal, place: Place, screen: Console) -> None:
    """Measure the cells of a plan that the journal lacks, and append each turn when it ends."""
    cells = journal.missing(plan.cells())
    with (
        Watcher.connected(read(Database), read(Monitor)) as watcher,
        Progress(screen) as progress,
    ):
        done = 0
        for stand, of_stand in groupby(cells, key=lambda cell: cell.stand):
            label = f"{stand.strategy} · {stand.model} · {stand.workload}"
            progress(f"{label}, {done} of {len(cells)} turns done")
            with standing(stand, plan, place, watcher) as site:
                for cell in of_stand:
                    seen = observe(site, cell.workload, _load(plan, cell), plan.turn_s)
                    journal.add(Turn(cell, seen.as_document()))
                    done += 1
                    progress(f"{label}, {done} of {len(cells)} turns done")


def _load(plan: Plan, cell: Cell) -> Load:
    return Closed(cell.clients) if plan.rate is None else Constant(plan.rate, cell.clients)


@contextmanager
def standing(stand: Stand, plan: Plan, place: Place, watcher: Watcher) -> Iterator[Site]:
    """Run the web server of a stand, and PgBouncer if the strategy uses it, for the length of a block."""
    server = timescale(place, read(Database), read(Monitor), read(Servers))
    with ExitStack() as started:
        servers, asked = [server], None
        if STRATEGIES[stand.strategy].pool_mode is not None:
            bounds = {
                "pgbouncer_pool_size": plan.connections,
                "pgbouncer_reserve_pool_size": 0,
                "pgbouncer_query_wait_timeout_s": POOL_TIMEOUT_S,
            }
            pooler = pgbouncer(place, read(Database), read(Monitor), read(Pooler).model_copy(update=bounds))
            pooler.start()
            started.callback(pooler.stop)
            servers.append(pooler)
            asked = started.enter_context(console())
        log = place.data / "log" / f"{stand.strategy}-{stand.model}.log"
        web = started.enter_context(running(MODELS[stand.model], variables(stand, plan), log))
        yield Site(web, tuple(servers), watcher, asked)
