"""Every strategy under every load: a web for each, its database, its pooler, turn by turn."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby

from rich.console import Console
from rich.progress import Progress

from config.env import Database, Monitor, Pooler, Servers, read
from config.strategies import STRATEGIES
from lab.generator import Closed, Constant, Load
from lab.matrix import Cell, Journal, Plan, Stand, Turn
from lab.observation import Site, observe, settle
from lab.watch import Watcher
from lab.web import MODELS, running
from sandbox.servers import Place, pgbouncer, timescale

MAX_CONNECTIONS = 40
"""of the server: 35 for the application, so that 128 clients with a connection each are too many"""
POOL_TIMEOUT_S = 1.0


def variables(stand: Stand, connections: int) -> dict[str, str]:
    """Give the environment of a web: the same number of connections, whoever keeps them."""
    each = max(1, connections // MODELS[stand.model].processes_in_all)
    return {
        "DB_POOL_STRATEGY": stand.strategy,
        "DJANGO_ENV": "production",
        "DB_MAX_CONNS": str(each),
        "DB_MAX_OVERFLOW": "0",
        "DB_MIN_CONNS": str(min(2, each)),
        "DB_POOL_TIMEOUT": str(POOL_TIMEOUT_S),
        "DB_CONN_HEALTH_CHECKS": "true",
        "POOLHOUSE_PUBLISH_INTERVAL_S": "0.2",
        "POOLHOUSE_REPORT_TTL_S": "2",
        "POOLHOUSE_LEAK_THRESHOLD_S": "0",
    }


def measure(plan: Plan, journal: Journal, place: Place, console: Console) -> None:
    """Measure what the journal lacks of a plan, and keep each turn as it ends."""
    cells = journal.missing(plan.cells())
    with (
        Watcher.connected(read(Database), read(Monitor)) as watcher,
        Progress(console=console, transient=True) as progress,
    ):
        task = progress.add_task("", total=len(cells))
        for stand, of_stand in groupby(cells, key=lambda cell: cell.stand):
            progress.update(task, description=f"{stand.strategy} · {stand.model}")
            with standing(stand, plan.connections, place, watcher) as site:
                for workload, turns in groupby(of_stand, key=lambda cell: cell.workload):
                    for number, cell in enumerate(turns):
                        if number == 0:
                            settle(site.web, workload, cell.clients)
                        seen = observe(site, workload, _load(plan, cell), plan.turn_s)
                        journal.add(Turn(cell, seen.as_document()))
                        progress.advance(task)


def _load(plan: Plan, cell: Cell) -> Load:
    return Closed(cell.clients) if plan.rate is None else Constant(plan.rate, cell.clients)


@contextmanager
def standing(stand: Stand, connections: int, place: Place, watcher: Watcher) -> Iterator[Site]:
    """Run the web of a stand, and PgBouncer before it where the strategy has it, for the length of a block."""
    server = timescale(place, read(Database), read(Monitor), read(Servers))
    with ExitStack() as started:
        servers = [server]
        if STRATEGIES[stand.strategy].pool_mode is not None:
            sizes = {"pgbouncer_pool_size": connections, "pgbouncer_reserve_pool_size": 0}
            pooler = pgbouncer(place, read(Database), read(Monitor), read(Pooler).model_copy(update=sizes))
            pooler.start()
            started.callback(pooler.stop)
            servers.append(pooler)
        log = place.data / "log" / f"{stand.strategy}-{stand.model}.log"
        web = started.enter_context(running(MODELS[stand.model], variables(stand, connections), log))
        yield Site(web, tuple(servers), watcher)
