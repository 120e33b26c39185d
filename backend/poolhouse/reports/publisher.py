"""Publishing this process' report to the store."""

import logging
import secrets
import time
from collections.abc import Sequence

import redis

from poolhouse.identity import current
from poolhouse.measures.histogram import Histogram
from poolhouse.measures.statement_meter import meter
from poolhouse.process.activity import Activity, Past
from poolhouse.process.pools import PoolState, pool_states
from poolhouse.reports.report import ProcessReport
from poolhouse.reports.store import ReportStore
from poolhouse.reports.totals import Numbers, increments, numbers_of

logger = logging.getLogger(__name__)


class Publisher:
    """Publishes reports; an unreachable store is logged once, and again when it is back."""

    def __init__(self, store: ReportStore) -> None:
        self._store = store
        self._run = secrets.token_hex(4)
        self._started_at = time.time()
        self._past = Past()
        self._reachable = True
        self._published_as = ""
        self._published: Numbers = {}

    def publish(self) -> None:
        """Replace this process' report and add to the totals; after an error the next call does both."""
        try:
            report = self._report()
            numbers = numbers_of(report.pools)
            self._store.publish(report, increments(self._published, numbers))
        except Exception as error:  # noqa: BLE001 - whatever the error, it is logged and the next interval tries again
            if self._reachable:
                logger.warning("cannot publish the pool report to Redis: %s: %s", type(error).__name__, error)
            self._reachable = False
        else:
            # If only the store's answer was lost, the same increments are added twice.
            self._published = numbers
            if not self._reachable:
                logger.warning("publishing pool reports to Redis again")
            self._reachable, self._published_as = True, report.key

    def withdraw(self) -> None:
        """Publish once more, and remove the report, as a process that ends normally does."""
        if not self._published_as:
            return
        self.publish()
        if not self._reachable:
            return  # the report will expire
        try:
            self._store.withdraw(self._published_as)
        except redis.RedisError as error:
            logger.debug("cannot delete the pool report from Redis, it will expire: %s", error)

    def _report(self) -> ProcessReport:
        me, pools = current(), tuple(pool_states())
        activity = activity_of(pools)
        return ProcessReport(
            name=me.name,
            service=me.service,
            host=me.host,
            pid=me.pid,
            started_at=self._started_at,
            reported_at=time.time(),
            pools=pools,
            activity=activity,
            recent=self._past.recent(activity, time.monotonic()),
            run=self._run,
        )


def activity_of(pools: Sequence[PoolState]) -> tuple[Activity, ...]:
    """Return the activity on each alias since this process started."""
    statements = meter().read()
    return tuple(
        Activity(
            pool.alias,
            *statements.get(pool.alias, (Histogram(), 0)),
            timeouts=pool.counts.get("timeouts", 0),
            connects=pool.counts.get("connects", 0),
            connect_errors=pool.counts.get("connect_errors", 0),
            wait=pool.wait,
            hold=pool.hold,
        )
        for pool in pools
    )
