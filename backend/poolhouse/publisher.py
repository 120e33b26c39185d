"""Telling the store what this process' pools do."""

import logging
import time

import redis

from poolhouse.identity import current
from poolhouse.pools import pool_states
from poolhouse.report import ProcessReport
from poolhouse.store import ReportStore

logger = logging.getLogger(__name__)


class Publisher:
    """Publishes when it is told to; a store that is away is logged once, and again when it is back."""

    def __init__(self, store: ReportStore) -> None:
        self._store = store
        self._started_at = time.time()
        self._reachable = True
        self._published = False

    def publish(self) -> None:
        """Replace this process' report, or leave it to the next time."""
        try:
            self._store.publish(self._report())
        except Exception as error:  # noqa: BLE001 - whatever it is, the next interval tries again, and the log has it
            if self._reachable:
                logger.warning("pool reports are not getting through: %s: %s", type(error).__name__, error)
            self._reachable = False
        else:
            if not self._reachable:
                logger.warning("pool reports are getting through again")
            self._reachable = self._published = True

    def withdraw(self) -> None:
        """Take the report away, as a process does that ends in good order."""
        if not self._published:
            return
        try:
            self._store.withdraw(current().name)
        except redis.RedisError as error:
            logger.debug("report not withdrawn, it will expire: %s", error)

    def _report(self) -> ProcessReport:
        me = current()
        return ProcessReport(
            name=me.name,
            service=me.service,
            host=me.host,
            pid=me.pid,
            started_at=self._started_at,
            reported_at=time.time(),
            pools=tuple(pool_states()),
        )
