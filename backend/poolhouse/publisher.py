"""The thread that reports this process's pools for as long as the process lives."""

import atexit
import logging
import os
import threading
import time

import redis

from poolhouse import pools
from poolhouse.conf import options
from poolhouse.identity import current, label_connections
from poolhouse.report import ProcessReport
from poolhouse.store import ReportStore, store

logger = logging.getLogger(__name__)


class Publisher:
    """Publishes on a daemon thread; a store that is away is logged once, and again when it is back."""

    def __init__(self, store: ReportStore, interval_s: float) -> None:
        self._store = store
        self._interval_s = interval_s
        self._started_at = time.time()
        self._stopping = threading.Event()
        self._reachable = True
        self._published = False
        self._thread = threading.Thread(target=self._run, name="poolhouse-publisher", daemon=True)

    def start(self) -> None:
        """Begin to report."""
        self._thread.start()

    def stop(self) -> None:
        """Report no more, and take the last report away."""
        self._stopping.set()
        self._thread.join(timeout=1)
        if not self._published:
            return
        try:
            self._store.withdraw(current().name)
        except redis.RedisError as error:
            logger.debug("report not withdrawn, it will expire: %s", error)

    def _run(self) -> None:
        # The wait comes first: a command that is over within an interval has nothing to tell.
        while not self._stopping.wait(self._interval_s):
            self._publish()

    def _publish(self) -> None:
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

    def _report(self) -> ProcessReport:
        me = current()
        return ProcessReport(
            name=me.name,
            service=me.service,
            host=me.host,
            pid=me.pid,
            started_at=self._started_at,
            reported_at=time.time(),
            pools=tuple(pools.pool_states()),
        )


_publisher: Publisher | None = None


def begin() -> None:
    """Label this process's connections and report its pools, here and in every child that it forks."""
    os.register_at_fork(after_in_child=_begin_in_child)
    atexit.register(_end)
    _begin()


def _begin_in_child() -> None:
    pools.forget_parent()
    store.cache_clear()  # its sockets are the parent's
    _begin()


def _begin() -> None:
    global _publisher  # noqa: PLW0603 - one a process, made anew in each child
    label_connections()
    target = store()
    _publisher = Publisher(target, options().PUBLISH_INTERVAL_S) if target else None
    if _publisher:
        _publisher.start()


def _end() -> None:
    if _publisher:
        _publisher.stop()
