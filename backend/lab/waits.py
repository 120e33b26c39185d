"""How long requests waited for a connection: by the pools' own reports, and by PgBouncer's count."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import psycopg2

from config.env import Monitor, read
from poolhouse.measures.histogram import Histogram
from poolhouse.reports.store import store
from poolhouse.reports.totals import totals_of
from poolhouse.servers import pgbouncer
from poolhouse.servers.bounded import Cursor
from sandbox.servers import HOST

ALIAS, SERVICE = "default", "web"


@contextmanager
def console() -> Iterator[Cursor]:
    """Connect to PgBouncer's console, for the length of a block.

    Before anything is measured: a PgBouncer with as many logins as it can take does not let another one in for seconds.
    """
    url = read(Monitor).model_copy(update={"pgbouncer_host": HOST}).pgbouncer_url
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor


@dataclass
class Waits:
    """The waits since they were begun, once they have ended."""

    pool: Histogram
    """of the application's pools; empty where they have none"""
    in_pgbouncer_s: float | None
    """of all clients together; None where there is no PgBouncer"""
    transactions: int = 0
    """that PgBouncer saw"""
    console: Cursor | None = field(default=None, repr=False)

    @classmethod
    def begun(cls, console: Cursor | None) -> Self:
        """Note what has been counted so far, by the pools and by PgBouncer, if there is one."""
        wait_s, transactions = (None, 0) if console is None else _in_pgbouncer(console)
        return cls(_in_pools(), wait_s, transactions, console)

    def ended(self) -> "Waits":
        """Give what came after."""
        now = Waits.begun(self.console)
        if now.in_pgbouncer_s is not None and self.in_pgbouncer_s is not None:
            now.in_pgbouncer_s -= self.in_pgbouncer_s
        return Waits(now.pool.since(self.pool), now.in_pgbouncer_s, now.transactions - self.transactions)

    def as_document(self) -> dict[str, Any]:
        """Give them as JSON data, in milliseconds; null is what nobody tells."""
        p95_s = self.pool.quantile_s(0.95) if self.pool.count else None
        mean_s = self.pool.mean_s
        return {
            "pool_mean": None if mean_s is None else round(mean_s * 1000, 3),
            "pool_p95": None if p95_s is None else round(p95_s * 1000, 3),
            "pgbouncer_mean": None
            if self.in_pgbouncer_s is None
            else round(self.in_pgbouncer_s / max(1, self.transactions) * 1000, 3),
        }


def _in_pools() -> Histogram:
    reports = store()
    if reports is None:
        raise RuntimeError("the lab has no Redis, in which its webs report; it is started by scripts/bench")
    totals = totals_of(reports.read_totals([SERVICE])[SERVICE])
    return totals[ALIAS].durations.get("wait", Histogram()) if ALIAS in totals else Histogram()


def _in_pgbouncer(console: Cursor) -> tuple[float, int]:
    """Ask PgBouncer how long its clients have waited in all, in seconds, and for how many transactions."""
    stats = pgbouncer.stats(console)
    return sum(one.wait_s for one in stats), sum(one.transactions for one in stats)
