"""How long requests waited for a connection: by the pools' own reports, and by PgBouncer's count."""

from dataclasses import dataclass, field
from typing import Any, Self

from config.env import Monitor, read
from poolhouse.driver import driver
from poolhouse.measures.histogram import Histogram
from poolhouse.reports.store import store
from poolhouse.reports.totals import totals_of
from poolhouse.servers import pgbouncer
from poolhouse.servers.bounded import bounded_cursor
from sandbox.servers import HOST

ALIAS, SERVICE = "default", "web"
CONSOLE_TIMEOUT_S = 2


@dataclass
class Waits:
    """The waits since they were begun, once they have ended."""

    pool: Histogram
    """of the application's pools; empty where they have none"""
    in_pgbouncer_s: float | None
    """of all clients together; None where there is no PgBouncer"""
    transactions: int = 0
    """that PgBouncer saw"""
    through_pgbouncer: bool = field(default=False, repr=False)

    @classmethod
    def begun(cls, *, through_pgbouncer: bool) -> Self:
        """Note what has been counted so far."""
        wait_s, transactions = _in_pgbouncer() if through_pgbouncer else (None, 0)
        return cls(_in_pools(), wait_s, transactions, through_pgbouncer)

    def ended(self) -> "Waits":
        """Give what came after."""
        now = Waits.begun(through_pgbouncer=self.through_pgbouncer)
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


def _in_pgbouncer() -> tuple[float, int]:
    """Ask PgBouncer how long its clients have waited in all, in seconds, and for how many transactions."""
    url = read(Monitor).model_copy(update={"pgbouncer_host": HOST}).pgbouncer_url
    with bounded_cursor(driver(ALIAS), CONSOLE_TIMEOUT_S, url, application_name="lab") as cursor:
        stats = pgbouncer.stats(cursor)
    return sum(one.wait_s for one in stats), sum(one.transactions for one in stats)
