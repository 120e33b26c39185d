"""How long requests waited for a connection, by the pools' reports and by PgBouncer's statistics."""

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

    Do so before the measurement: a PgBouncer that is busy with logins may not accept another for seconds.
    """
    url = read(Monitor).model_copy(update={"pgbouncer_host": HOST}).pgbouncer_url
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor


@dataclass
class Waits:
    """The wait times between `begun` and `ended`."""

    pool: Histogram
    """of the application's pools; empty without a pool"""
    in_pgbouncer_s: float | None
    """of all clients together; None without a PgBouncer"""
    transactions: int = 0
    """counted by PgBouncer"""
    console: Cursor | None = field(default=None, repr=False)

    @classmethod
    def begun(cls, console: Cursor | None) -> Self:
        """Read the counters of the pools, and of PgBouncer if there is one."""
        wait_s, transactions = (None, 0) if console is None else _in_pgbouncer(console)
        return cls(_in_pools(), wait_s, transactions, console)

    def ended(self) -> "Waits":
        """Return the wait times since then."""
        now = Waits.begun(self.console)
        if now.in_pgbouncer_s is not None and self.in_pgbouncer_s is not None:
            now.in_pgbouncer_s -= self.in_pgbouncer_s
        return Waits(now.pool.since(self.pool), now.in_pgbouncer_s, now.transactions - self.transactions)

    def as_document(self) -> dict[str, Any]:
        """Return them as JSON data in milliseconds; null is a figure that nothing reports."""
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
        raise RuntimeError("the lab needs a Redis for the reports of its web servers: start it with scripts/bench")
    totals = totals_of(reports.read_totals([SERVICE])[SERVICE])
    return totals[ALIAS].durations.get("wait", Histogram()) if ALIAS in totals else Histogram()


def _in_pgbouncer(console: Cursor) -> tuple[float, int]:
    """Return the seconds that PgBouncer's clients have waited in all, and the number of transactions."""
    stats = pgbouncer.stats(console)
    return sum(one.wait_s for one in stats), sum(one.transactions for one in stats)
