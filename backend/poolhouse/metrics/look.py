"""One look at everything that is measured, from whichever process is asked; each source is bounded in time."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import redis
from django.db import DEFAULT_DB_ALIAS

from poolhouse.conf import options
from poolhouse.driver import driver_errors
from poolhouse.reports.report import ProcessReport
from poolhouse.reports.store import store
from poolhouse.reports.totals import Totals, totals_of
from poolhouse.servers import pgbouncer, server
from poolhouse.servers.pgbouncer import PgBouncer
from poolhouse.servers.server import Capacity, ServerConnection, ask_as_monitor

logger = logging.getLogger(__name__)

REPORTS, SERVER, PGBOUNCER = "reports", "server", "pgbouncer"
T = TypeVar("T")


@dataclass(frozen=True)
class Fleet:
    """What the processes tell."""

    reports: list[ProcessReport]
    totals: dict[str, dict[str, Totals]]
    """by service and alias; only of services that have a process now"""


@dataclass(frozen=True)
class Room:
    """What the database server tells."""

    capacity: Capacity
    connections: list[ServerConnection]


@dataclass(frozen=True)
class Look:
    """The answers; None is a source that gave none."""

    taken_at: float
    fleet: Fleet | None = None
    room: Room | None = None
    pgbouncer: PgBouncer | None = None
    is_up: dict[str, bool] = field(default_factory=dict)
    """whether each source that was asked has answered"""


class Recent(Generic[T]):
    """An answer that is kept for a while; those who ask at the same time share one."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answers: list[T] = []
        self._expires_at = 0.0

    def get(self, max_age_s: float) -> T:
        """Give the answer, which is asked for anew if it is older than max_age_s.

        Raises:
            what asking raises.
        """
        with self._lock:
            if time.monotonic() >= self._expires_at:
                self._answers = [self._ask()]
                self._expires_at = time.monotonic() + max_age_s
            return self._answers[0]

    def forget(self) -> None:
        """Ask anew the next time."""
        with self._lock:
            self._expires_at = 0.0


def take_look() -> Look:
    """Ask every source once; never raises for one that is away.

    It takes at most three times POOLHOUSE["MONITOR_TIMEOUT_S"], and half of one where the monitor's role is refused.
    """
    is_up: dict[str, bool] = {}
    errors = driver_errors(DEFAULT_DB_ALIAS)
    fleet = _answer(REPORTS, _read_fleet, (redis.RedisError,), is_up) if store() else None
    room = _answer(SERVER, _ask_server, errors, is_up)
    # A PgBouncer before 1.18 lacks columns.
    pooler = _answer(PGBOUNCER, _ask_pgbouncer, (*errors, KeyError), is_up) if options().PGBOUNCER_URL else None
    return Look(time.time(), fleet, room, pooler, is_up)


def _answer(source: str, ask: Callable[[], T], errors: tuple[type[Exception], ...], is_up: dict[str, bool]) -> T | None:
    try:
        answer = ask()
    except errors as error:
        logger.debug("%s: %s", source, error)  # db_pool_status says it to whoever sees that the source is down
        is_up[source] = False
        return None
    is_up[source] = True
    return answer


def _read_fleet() -> Fleet:
    reports_of = store()
    assert reports_of is not None  # noqa: S101 - for the type: it is not asked otherwise
    reports = reports_of.read_all()
    numbers = reports_of.read_totals(report.service for report in reports)
    return Fleet(reports, {service: totals_of(found) for service, found in numbers.items()})


def _ask_server() -> Room:
    room, _ = ask_as_monitor(
        DEFAULT_DB_ALIAS, lambda cursor: Room(server.capacity(cursor), server.client_connections(cursor))
    )
    return room


def _ask_pgbouncer() -> PgBouncer:
    with pgbouncer.console_cursor(DEFAULT_DB_ALIAS) as cursor:
        return pgbouncer.ask(cursor)
