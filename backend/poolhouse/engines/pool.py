"""SQLAlchemy's QueuePool, as dj_db_conn_pool uses it, that keeps its time and tells what it does."""

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool import QueuePool
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util.queue import Empty, Queue

from poolhouse.conf import options
from poolhouse.engines import leaks, session, sockets
from poolhouse.engines.connecting import TooSlowError, connect_within
from poolhouse.engines.lending import Lease, LentConnection, frames_here
from poolhouse.engines.options import PoolOptions
from poolhouse.errors import PoolTimeoutError, PoolUse
from poolhouse.measures.meter import Meter
from poolhouse.tracing.work import current_work

# What a ping may take of the TIMEOUT, and at most: the rest is for the new connection that replaces a dead one.
PING_SHARE, PING_MAX_S = 0.5, 5.0
# A collection stops every thread for as long as it takes, which in a large process is a tenth of a second.
COLLECT_INTERVAL_S = 1.0
# libpq's PQTRANS_IDLE, which both drivers hand on: https://www.postgresql.org/docs/17/libpq-status.html
NO_TRANSACTION = 0

# SQLAlchemy writes a line for each connection that is closed; they are counted here. ECHO brings the lines back.
logging.getLogger(f"{__name__}.LendingPool").setLevel(logging.WARNING)


class _NothingFreeError(Exception):
    """No slot within the time."""


class LendingPool(QueuePool):
    """A pool that gives a connection or an error in time, and counts.

    A slot may be without a connection: after an attempt that failed it is free like any other, and the next caller
    connects. So a failure wakes those who wait, where the plain pool would let them wait for their whole time.
    """

    def __init__(self, alias: str, settings: PoolOptions, dialect: Dialect) -> None:
        super().__init__(
            self._open,
            pool_size=settings.POOL_SIZE,
            max_overflow=settings.MAX_OVERFLOW,
            timeout=settings.TIMEOUT,
            use_lifo=settings.USE_LIFO,
            recycle=settings.RECYCLE,
            echo=settings.ECHO,
            pre_ping=False,  # this pool knows better when
            dialect=dialect,
        )
        self.alias, self.settings, self.meter = alias, settings, Meter(alias)
        self.waiting = 0
        self.pid = os.getpid()
        self._asked = threading.local()
        self._waiting_lock = threading.Lock()
        self._leases: dict[int, Lease] = {}
        self._opened: dict[Any, float] = {}  # when, by perf_counter
        self._may_collect_at = 0.0
        self._notes_frames = options().LEAK_THRESHOLD_S > 0

    def asked_by(self, connect: Callable[[], Any]) -> None:
        """Say how this thread's next connection is opened, should a new one be needed: with the parameters of now."""
        self._asked.connect = connect

    def connect(self) -> LentConnection:  # type: ignore[override]  # a lighter one than SQLAlchemy's
        """Lend a connection.

        Raises:
            PoolTimeoutError: there was none within TIMEOUT.
            the driver's Error: it could not be opened.
        """
        began_at = time.perf_counter()
        self._asked.deadline = began_at + self.settings.TIMEOUT
        try:
            slot = self._take_filled_slot()
        except (_NothingFreeError, TooSlowError) as error:
            self.meter.count("timeouts")
            waited_s = time.perf_counter() - began_at
            if (work := current_work()) is not None:
                work.wait_s += waited_s
            raise self._timeout_error(waited_s, str(error)) from None
        lease = Lease(frames_here() if self._notes_frames else ())
        waited_s = lease.began_at - began_at
        self._leases[id(lease)] = lease
        if lease.work is not None:
            lease.work.wait_s += waited_s
            lease.work.held_since = lease.began_at
        self.meter.lent(waited_s)
        return LentConnection(slot.dbapi_connection, lease, partial(self._take_back, slot, lease))

    def leases(self) -> list[Lease]:
        """Give the connections that are lent now."""
        return list(self._leases.values())

    def age_s(self, connection: Any) -> float:
        """Give how long ago a connection of this pool was opened, by the driver's object."""
        return time.perf_counter() - self._opened[connection]

    @property
    def open(self) -> int:
        """How many connections are open, lent or not."""
        return len(self._opened)

    def keep_warm(self) -> None:
        """Open what is missing of MIN_SIZE; `asked_by` says how.

        Raises:
            the driver's Error, TooSlowError: one could not be opened.
        """
        self._asked.deadline = time.perf_counter() + self.settings.TIMEOUT
        self._bury_what_the_server_closed()
        while self.open < self.settings.MIN_SIZE and (slot := self._slot_without_connection()) is not None:
            try:
                slot.get_connection()
            finally:
                self._put_back(slot)

    def find_forgotten(self) -> bool:
        """Let the collector return the connections of threads that have ended without returning them; True if it did.

        Django's wrappers refer to themselves, so they outlive their thread until the collector comes by, which it does
        when much is allocated, and not when everybody waits.
        """
        now = time.perf_counter()
        if now < self._may_collect_at or all(lease.thread.is_alive() for lease in self.leases()):
            return False
        self._may_collect_at = now + COLLECT_INTERVAL_S
        held = len(self._leases)
        gc.collect()
        return len(self._leases) < held

    def disown(self) -> None:
        """Let go, in a forked child, of the sockets that are the parent's."""
        for connection in list(self._opened):
            sockets.disown(connection)

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        self._opened.pop(connection, None)
        super()._close_connection(connection, terminate=terminate)

    # Lending.

    def _take_filled_slot(self) -> Any:
        slot = self._take_slot(self._asked.deadline)
        try:
            if slot.dbapi_connection is not None:
                self._replace_if_old_or_dead(slot)
            if slot.dbapi_connection is None:
                slot.get_connection()
        except BaseException:
            self._put_back(slot)  # whoever waits for one connects
            raise
        return slot

    def _take_slot(self, deadline: float) -> Any:
        """Give a slot that is free, or a new one, or wait for one.

        Raises:
            _NothingFreeError: the deadline has passed.
        """
        while True:
            try:
                return self._pool.get(False)
            except Empty:
                pass
            if self._inc_overflow():
                return _ConnectionRecord(self, connect=False)
            left_s = deadline - time.perf_counter()
            if left_s <= 0:
                raise _NothingFreeError("every connection is lent")
            if self.find_forgotten():
                continue
            with self._counted_as_waiting():
                try:
                    return self._pool.get(True, left_s)
                except Empty:
                    raise _NothingFreeError("every connection is lent") from None

    @contextmanager
    def _counted_as_waiting(self) -> Iterator[None]:
        with self._waiting_lock:
            self.waiting += 1
        try:
            yield
        finally:
            with self._waiting_lock:
                self.waiting -= 1

    def _replace_if_old_or_dead(self, slot: Any) -> None:
        """Empty a slot that is about to be lent, if its connection is of no use; the borrower connects anew."""
        if 0 <= self.settings.RECYCLE < time.time() - slot.starttime:
            self.meter.count("recycled")
            slot.invalidate()
        elif slot.starttime < self._invalidate_time or not self._is_alive(slot):
            self._bury(slot)

    def _is_alive(self, slot: Any) -> bool:
        """Look whether an idle connection is alive, and ask it where looking does not tell."""
        idle_s = time.perf_counter() - slot.info["returned_at"]
        is_due = self.settings.PRE_PING and idle_s > self.settings.PING_IDLE_S
        if not is_due and not self._has_word(slot):
            return True
        timeout_s = min(PING_MAX_S, max(0.0, self._asked.deadline - time.perf_counter()) * PING_SHARE)
        begun_at = time.perf_counter()
        if sockets.is_alive(slot.dbapi_connection, timeout_s):
            return True
        if time.perf_counter() - begun_at >= timeout_s:
            # The way to the server is broken, for the others as well, and not each caller should have to find it out.
            self._invalidate_time = time.time()
        return False

    @staticmethod
    def _has_word(slot: Any) -> bool:
        """Say whether the server has sent something to an idle connection, or has closed it; it takes a microsecond.

        A server that is restarted, fails over or ends a session says so at once; one behind a broken network does not.
        """
        poller = slot.info.get("poller")
        if poller is None:
            poller = slot.info["poller"] = sockets.poller_of(slot.dbapi_connection)
        return bool(poller.poll(0))

    def _bury(self, slot: Any) -> None:
        """Close a connection that is broken, without a word to the server, which could block."""
        self.meter.count("invalidated")
        sockets.sever(slot.dbapi_connection)
        slot.invalidate()

    def _open(self) -> Any:
        """Open a connection for a slot."""
        begun_at = time.perf_counter()
        try:
            connection = connect_within(self._asked.deadline - begun_at, self._asked.connect)
        except BaseException:
            self.meter.count("connect_errors")
            raise
        self._opened[connection] = time.perf_counter()
        self.meter.connected(time.perf_counter() - begun_at)
        if (work := current_work()) is not None:
            work.opened_count += 1
        return connection

    def _slot_without_connection(self) -> Any:
        """Give a slot to be warmed, one that lost its connection or a new one; None if all have one."""
        queue = cast("Queue[Any]", self._pool)
        with queue.mutex:
            for slot in queue.queue:
                if slot.dbapi_connection is None:
                    queue.queue.remove(slot)
                    return slot
        return _ConnectionRecord(self, connect=False) if self._inc_overflow() else None

    def _bury_what_the_server_closed(self) -> None:
        """Empty the slots of idle connections that are of no use any more, before somebody is to use them."""
        queue = cast("Queue[Any]", self._pool)
        with queue.mutex:
            for slot in queue.queue:
                if slot.dbapi_connection is not None and self._has_word(slot):
                    self._bury(slot)

    # Returning.

    def _take_back(self, slot: Any, lease: Lease) -> None:
        if os.getpid() != self.pid:  # of the parent's pool, in a child: it is not ours
            return
        try:
            self._end(lease)
            if not self._is_clean(slot.dbapi_connection, lease):
                self._bury(slot)
        finally:
            self._put_back(slot)

    def _put_back(self, slot: Any) -> None:
        slot.info["returned_at"] = time.perf_counter()
        self._do_return_conn(slot)

    def _end(self, lease: Lease) -> None:
        del self._leases[id(lease)]
        held_s = lease.held_s()
        self.meter.returned(held_s)
        if lease.is_suspect:
            leaks.note_return(self.alias, lease)
        if lease.work is not None:
            lease.work.hold_s += held_s
            lease.work.held_since = None

    def _is_clean(self, connection: Any, lease: Lease) -> bool:
        """Say whether a connection can be lent again, once its transaction and its session are brought to an end."""
        if connection.closed:
            return False
        in_transaction = connection.info.transaction_status != NO_TRANSACTION
        resets = self.settings.RESET == "always" or (self.settings.RESET == "seen" and lease.leaves_state)
        if not in_transaction and not resets:
            return True
        try:
            with sockets.severed_after(connection, self.settings.TIMEOUT):
                if in_transaction:
                    connection.rollback()
                if resets:
                    session.reset_session(connection)
                    self.meter.count("resets")
        except Exception:  # noqa: BLE001 - what cannot be brought to an end is closed
            return False
        return True

    def _timeout_error(self, waited_s: float, reason: str) -> PoolTimeoutError:
        held = max(self.leases(), key=Lease.held_s, default=None)
        use = PoolUse(self.settings.POOL_SIZE, self.settings.MAX_OVERFLOW, len(self._leases), self.waiting + 1)
        longest = f"longest held: {held.held_s():.1f} s by {held.holder}" if held else ""
        return PoolTimeoutError(self.alias, waited_s, use, longest, reason)
