"""One look at everything that is measured, from whichever process is asked; each source is bounded in time."""

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
class Look:
    """The answers."""

    status: Status
    totals: dict[str, dict[str, Totals]] = field(default_factory=dict)
    """by service and alias; only of services that have a process now"""
    is_up: dict[tuple[str, str], bool] = field(default_factory=dict)
    """whether each source that was asked has answered; of a server with its alias, else with none"""


class Recent(Generic[T]):
    """An answer that is kept for a while. One thread asks anew; those that come meanwhile have the one before."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answers: list[T] = []
        self._expires_at = 0.0

    def get(self, max_age_s: float) -> T:
        """Give the answer, which is asked for anew if it is older than max_age_s.

        Where there is none yet, all wait for the first: a source that hangs takes its time of them once.

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
        """Begin anew in a forked child; another thread of the parent may have held the lock."""
        self._lock, self._expires_at = threading.Lock(), 0.0

    def forget(self) -> None:
        """Ask anew the next time, whoever asks."""
        with self._lock:
            self._answers, self._expires_at = [], 0.0


def take_look() -> Look:
    """Ask every source once; never raises for one that is away.

    All are asked at once: it takes POOLHOUSE["MONITOR_TIMEOUT_S"], and half of one more where the monitor's role is
    refused.
    """
    status = take_status(detailed=False)
    is_up = {(SERVER, one.alias): bool(status.server_of(one.alias)) for one in targets()}
    if store():
        is_up[REPORTS, ""] = status.knows_processes
    if options().PGBOUNCER_URL:
        is_up[PGBOUNCER, ""] = status.pgbouncer is not None
    return Look(status, _read_totals(status) if status.knows_processes else {}, is_up)


def _read_totals(status: Status) -> dict[str, dict[str, Totals]]:
    reports = store()
    assert reports is not None  # noqa: S101 - for the type: it has just answered
    try:
        numbers = reports.read_totals(process.service for process in status.processes)
    except redis.RedisError as error:
        logger.warning("cannot read the totals of the pools from Redis: %s", error)
        return {}
    return {service: totals_of(found) for service, found in numbers.items()}
