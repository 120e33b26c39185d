"""The answers of all sources for one scrape, from whichever process is asked, within a timeout."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import redis

from poolhouse.conf import options
from poolhouse.overview.status import Status, take_status
from poolhouse.reports.store import store
from poolhouse.reports.totals import Totals, totals_of
from poolhouse.servers.targets import targets

logger = logging.getLogger(__name__)

REPORTS, SERVER, PGBOUNCER = "reports", "server", "pgbouncer"
T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot:
    """The answers of all sources."""

    status: Status
    totals: dict[str, dict[str, Totals]] = field(default_factory=dict)
    """by service and alias, of services that have a process now"""
    is_up: dict[tuple[str, str], bool] = field(default_factory=dict)
    """by source and server alias (empty for other sources): whether it has answered"""


class Recent(Generic[T]):
    """An answer that is cached for a while. One thread refreshes it; the others get the previous one meanwhile."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answers: list[T] = []
        self._expires_at = 0.0

    def get(self, max_age_s: float) -> T:
        """Return the answer, refreshed if it is older than max_age_s.

        Before the first answer all callers wait for it, so that a source that hangs delays them once.

        Raises:
            what asking raises.
        """
        before = self._answers[-1:]
        if time.monotonic() < self._expires_at and before:
            return before[0]
        if not self._lock.acquire(blocking=not before):
            return before[0]
        try:
            if time.monotonic() >= self._expires_at:
                self._answers = [self._ask()]
                self._expires_at = time.monotonic() + max_age_s
            return self._answers[0]
        finally:
            self._lock.release()

    def forget_parent(self) -> None:
        """Start afresh in a forked child; another thread of the parent may have held the lock."""
        self._lock, self._expires_at = threading.Lock(), 0.0

    def forget(self) -> None:
        """Drop the answer, so that the next call refreshes it."""
        with self._lock:
            self._answers, self._expires_at = [], 0.0


def take_snapshot() -> Snapshot:
    """Query every source once; a source that is unreachable raises no error.

    All are queried at the same time, which takes up to POOLHOUSE["MONITOR_TIMEOUT_S"], and half of it more if the
    monitor's role is refused.
    """
    status = take_status(detailed=False)
    is_up = {(SERVER, one.alias): bool(status.server_of(one.alias)) for one in targets()}
    if store():
        is_up[REPORTS, ""] = status.knows_processes
    if options().PGBOUNCER_URL:
        is_up[PGBOUNCER, ""] = status.pgbouncer is not None
    return Snapshot(status, _read_totals(status) if status.knows_processes else {}, is_up)


def _read_totals(status: Status) -> dict[str, dict[str, Totals]]:
    reports = store()
    assert reports is not None  # noqa: S101 - for mypy: the store has just answered
    try:
        numbers = reports.read_totals(process.service for process in status.processes)
    except redis.RedisError as error:
        logger.warning("cannot read the totals of the pools from Redis: %s", error)
        return {}
    return {service: totals_of(found) for service, found in numbers.items()}
