"""The pool: checkout, check-in, and recovery of abandoned connections."""

import gc
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import ref

from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool import QueuePool
from sqlalchemy.pool.base import _ConnectionRecord

from poolhouse.conf import options
from poolhouse.engines import leaks, session, sockets
from poolhouse.engines.alive import Alive
from poolhouse.engines.connecting import Attempt, TooSlowError
from poolhouse.engines.lease import Lease, frames_here
from poolhouse.engines.leased_connection import LeasedConnection, forget_locals
from poolhouse.engines.options import PoolOptions
from poolhouse.engines.permits import Permit, Permits, Waiter
from poolhouse.engines.slot import Slot, identity_of
from poolhouse.errors import PoolTimeoutError, PoolUse
from poolhouse.measures.meter import Meter
from poolhouse.tracing.work import current_work

logger = logging.getLogger(__name__)

# The pre-ping gets this share of TIMEOUT, up to a maximum: the rest is for replacing a dead connection.
PING_SHARE, PING_MAX_S = 0.5, 5.0
# How often a waiter looks for abandoned connections.
LOOK_INTERVAL_S = 0.1
# A garbage collection stops all threads: a tenth of a second in a large process.
COLLECT_INTERVAL_S = 1.0

# SQLAlchemy logs a line per closed connection, which the meter counts instead. ECHO turns the lines on.
logging.getLogger(f"{__name__}.LendingPool").setLevel(logging.WARNING)


Params = dict[str, Any]
Open = Callable[[Params], Any]
"""opens a connection of the driver"""


class _NothingFreeError(Exception):
    """No permit became free within the timeout."""


class LendingPool(QueuePool):
    """SQLAlchemy's pool for one alias, with permits that are served first in, first out.

    A reference to a connection is a checkout, and the connection refers to its permit. An exception may be raised
    between any two lines, so nothing is counted by hand: the next caller checks in or closes what is no longer
    referenced (`_abandoned`).
    """

    def __init__(self, alias: str, settings: PoolOptions, dialect: Dialect) -> None:
        # QueuePool's constructor would make its own queue, which the permits replace.
        super(QueuePool, self).__init__(self._connect_for_slot, echo=settings.ECHO, dialect=dialect)
        self.alias, self.settings, self.meter = alias, settings, Meter(alias)
        self.pid = os.getpid()
        self._timeout = settings.TIMEOUT
        self._permits: Permits[Slot] = Permits(settings.POOL_SIZE, settings.MAX_OVERFLOW, lifo=settings.USE_LIFO)
        self._leases: dict[ref[LeasedConnection], Lease] = {}
        self._slots: Alive[Slot] = Alive()
        self._abandoned: deque[ref[LeasedConnection] | Slot] = deque()
        self._generation = 0
        self._connecting = threading.local()
        self._may_collect_at = 0.0
        self._notes_frames = options().LEAK_THRESHOLD_S > 0

    def connect(self, params: Params, open_: Open) -> LeasedConnection:  # type: ignore[override]  # SQLAlchemy's is heavier
        """Check out a connection.

        Args:
            params: the current connection parameters, in case a new connection is opened.
            open_: opens a connection; called on another thread.

        Raises:
            PoolTimeoutError: no connection was available within TIMEOUT.
            the driver's Error: a connection could not be opened.
        """
        try:
            return self._check_out(params, open_)
        except BaseException as error:
            forget_locals(error)
            raise

    def _check_out(self, params: Params, open_: Open) -> LeasedConnection:
        began_at = time.perf_counter()
        try:
            slot = self._take_slot(params, open_, began_at + self._timeout)
        except (_NothingFreeError, TooSlowError) as error:
            self.meter.timed_out(time.perf_counter() - began_at)
            waited_s = time.perf_counter() - began_at
            if (work := current_work()) is not None:
                work.wait_s += waited_s
            raise self._timeout_error(waited_s, str(error)) from None
        lease = Lease(slot, frames_here() if self._notes_frames else ())
        leased = LeasedConnection(slot.connection, lease, self)
        self._leases[ref(leased, self._abandoned.append)] = lease  # from here on, dropping the reference checks it in
        waited_s = lease.began_at - began_at
        if lease.work is not None:
            lease.work.wait_s += waited_s
            lease.work.took(lease.began_at)
        self.meter.checked_out(waited_s)
        return leased

    def leases(self) -> list[Lease]:
        """Return the leases of the connections that are in use."""
        self._check_in_abandoned()
        return list(self._leases.values())

    def age_s(self, connection: Any) -> float:
        """Return the age of a connection of this pool, given the driver's object."""
        return time.perf_counter() - next(slot for slot in self._slots if slot.connection is connection).opened_at

    @property
    def open(self) -> int:
        """The number of open connections, idle or in use."""
        return len(self._slots)

    @property
    def waiting(self) -> int:
        """The number of callers that wait for a connection."""
        return self._permits.waiting

    def size(self) -> int:
        """Return POOL_SIZE, by SQLAlchemy's name for it."""
        return self._permits.size

    def checkedin(self) -> int:
        """Return the number of idle connections."""
        return self._permits.idle

    def checkedout(self) -> int:
        """Return the number of connections that are in use or being opened."""
        return max(0, self._permits.count - self._permits.idle)

    def overflow(self) -> int:
        """Return the number of connections above POOL_SIZE; negative if there are fewer."""
        return self._permits.count - self._permits.size

    def keep_warm(self, params: Params, open_: Open, within_s: float | None = None) -> None:
        """Open the missing connections of MIN_SIZE.

        Args:
            params: see `connect`.
            open_: see `connect`.
            within_s: how long to wait; None: TIMEOUT. A connection opened later is kept as well.

        Raises:
            the driver's Error, TooSlowError: a connection could not be opened.
        """
        deadline = time.perf_counter() + (self._timeout if within_s is None else within_s)
        self._close_dead_connections()
        while (permit := self._permits.reserve(self.settings.MIN_SIZE)) is not None:
            self._put_back(self._open(permit, params, open_, deadline))

    def recover_abandoned(self) -> bool:
        """Check in connections abandoned by threads that have ended; return True if there were any.

        Django's wrappers refer to themselves, so they outlive their thread until the next garbage collection, which
        needs allocations and does not come while all threads wait.
        """
        now = time.perf_counter()
        if now >= self._may_collect_at and not all(lease.thread.is_alive() for lease in self.leases()):
            self._may_collect_at = now + COLLECT_INTERVAL_S
            gc.collect()
        return self._check_in_abandoned()

    def dispose(self) -> None:
        """Close the idle connections now, and the others at check-in."""
        self._generation += 1
        for slot in self._permits.idle_ones():
            if self._permits.withdraw(slot):
                self._close(slot)

    def recreate(self) -> "LendingPool":
        """Return a new pool with the same options."""
        return LendingPool(self.alias, self.settings, self._dialect)  # type: ignore[arg-type]  # it was passed as one

    def disown(self) -> None:
        """Detach, in a forked child, from the sockets that belong to the parent."""
        for slot in self._slots:
            sockets.disown(slot.connection)

    # Checkout.

    def _take_slot(self, params: Params, open_: Open, deadline: float) -> Slot:
        if self._abandoned:
            self._check_in_abandoned()
        taken = self._permits.take()
        if taken is None:
            taken = self._wait(deadline)
        while isinstance(taken, Slot):
            if self._is_fit(taken, params, deadline):
                return taken
            taken = self._permits.exchange(taken.permit)  # another idle connection will do
        slot = self._open(taken, params, open_, deadline)
        if (work := current_work()) is not None:
            work.opened_count += 1
        return slot

    def _wait(self, deadline: float) -> Slot | Permit:
        """Wait for a connection, or for a permit to open one.

        Raises:
            _NothingFreeError: the deadline has passed.
        """
        waiter: Waiter[Slot] = Waiter()
        try:
            self._permits.join(waiter)
            while not waiter.wait(min(LOOK_INTERVAL_S, deadline - time.perf_counter())):
                if time.perf_counter() >= deadline:
                    break
                self.recover_abandoned()
                self._permits.serve()  # freed when its last reference was dropped
            served = self._permits.leave(waiter)
        except BaseException:  # a signal handler's exception, or a greenlet's timeout
            self._return(self._permits.leave(waiter))
            raise
        if served is None:
            is_opening = self.checkedout() > len(self._leases)
            raise _NothingFreeError(f"all connections are in use{' or being opened' if is_opening else ''}")
        return served

    def _return(self, served: Slot | Permit | None) -> None:
        if isinstance(served, Slot):
            self._put_back(served)
        elif served is not None:
            self._permits.release(served)

    def _is_fit(self, slot: Slot, params: Params, deadline: float) -> bool:
        """Return True if an idle connection can be checked out; otherwise close it and keep its permit."""
        if slot.identity != identity_of(params):  # the settings have changed: it is connected to something else
            self._discard(slot)
            return False
        now = time.perf_counter()
        if 0 <= self.settings.RECYCLE < now - slot.opened_at:
            self.meter.count("recycled")
            self._discard(slot)
            return False
        if slot.generation == self._generation:
            is_due = self.settings.PRE_PING and now - slot.returned_at > self.settings.PING_IDLE_S
            if not (is_due or slot.has_arrival()) or self._answers(slot, deadline):
                return True
        self.meter.count("invalidated")
        self._sever(slot)
        return False

    def _answers(self, slot: Slot, deadline: float) -> bool:
        """Return True if an idle connection is alive, pinging it only if the socket does not tell."""
        full_s = min(PING_MAX_S, self._timeout * PING_SHARE)
        begun_at = time.perf_counter()
        timeout_s = min(full_s, max(0.0, deadline - begun_at) * PING_SHARE)
        if sockets.is_alive(slot.connection, timeout_s):
            return True
        if time.perf_counter() - begun_at >= timeout_s >= full_s / 2:
            # The network path is broken for all of them, and not every caller should have to find out.
            self._generation += 1
        return False

    def _open(self, permit: Permit, params: Params, open_: Open, deadline: float) -> Slot:
        """Open a connection; if that fails, its permit is released once the attempt has ended."""
        make, late = partial(self._make_slot, permit, params, open_), partial(self._receive_late, permit)
        attempt: Attempt[Slot] = Attempt(make, late)
        return attempt.opened_within(deadline - time.perf_counter())

    def _make_slot(self, permit: Permit, params: Params, open_: Open) -> Slot:
        generation, begun_at = self._generation, time.perf_counter()
        self._connecting.connect = partial(open_, params)
        try:
            record = _ConnectionRecord(self)
        except BaseException:
            self.meter.count("connect_errors")
            raise
        slot = Slot(permit, record, identity_of(params), generation, self._abandoned.append)
        self._slots.add(slot)
        self.meter.connected(slot.opened_at - begun_at)
        return slot

    def _connect_for_slot(self) -> Any:
        """Open a connection for SQLAlchemy's record, without logging."""
        return self._connecting.connect()

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        """Close the driver's connection for SQLAlchemy's record; `terminate` makes no difference for these drivers.

        SQLAlchemy's own method logs every Exception and goes on: a task would outlive its soft time limit, and the log
        record would keep the interrupted frames, and the permit in them.
        """
        try:
            self._dialect.do_close(connection)
        except (connection.Error, OSError) as error:
            logger.warning("%s: cannot close a connection: %s", self.alias, error)

    def _receive_late(self, permit: Permit, slot: Slot | None) -> None:
        """Keep a connection whose caller has gone."""
        self._return(slot or permit)

    def _close_dead_connections(self) -> None:
        """Close the idle connections that the server has closed, before one of them is checked out."""
        for slot in self._permits.idle_ones():
            if not self._permits.withdraw(slot):  # it was checked out in the meantime
                continue
            if slot.has_arrival():
                self._settle(slot, is_clean=False)
            elif not self._permits.put(slot):
                self._close(slot)

    # Check-in.

    def check_in(self, connection: LeasedConnection) -> None:
        """Check in a connection and end its lease."""
        if os.getpid() != self.pid:  # in a forked child, the parent's connections are not this pool's
            return
        if (lease := self._leases.pop(ref(connection), None)) is not None:  # only one caller gets it, and only once
            slot, lease.slot, is_clean = lease.slot, None, False
            try:
                self._end(lease)
                is_clean = self._is_clean(slot, lease)
            finally:
                self._settle(slot, is_clean=is_clean)

    def _check_in_abandoned(self) -> bool:
        """Check in the abandoned connections, without waiting for the server."""
        found = False
        while self._abandoned:
            with suppress(IndexError):  # another thread was faster
                one = self._abandoned.popleft()
                found = True
                if isinstance(one, Slot):
                    self._settle(one, is_clean=False)
                elif (lease := self._leases.pop(one, None)) is not None:
                    slot, lease.slot = lease.slot, None
                    self._end(lease)
                    self._settle(slot, is_clean=self._is_untouched(slot, lease))
        return found

    def _end(self, lease: Lease) -> None:
        lease.is_over = True
        held_s = lease.held_s()
        self.meter.checked_in(held_s)
        if lease.is_suspect:
            leaks.note_return(self.alias, lease)
        if lease.work is not None:
            lease.work.gave_back(lease.began_at + held_s)
            lease.work = None  # a kept cursor would keep the whole request alive

    def _settle(self, slot: Slot, *, is_clean: bool) -> None:
        if is_clean:
            self._put_back(slot)
        else:
            self.meter.count("invalidated")
            self._sever(slot)
            self._permits.release(slot.permit)

    def _put_back(self, slot: Slot) -> None:
        slot.returned_at = time.perf_counter()
        if not self._permits.put(slot):
            self._close(slot)

    def _close(self, slot: Slot) -> None:
        """Close a connection and release its permit."""
        self._discard(slot)
        self._permits.release(slot.permit)

    def _discard(self, slot: Slot) -> None:
        """Close a healthy connection."""
        slot.record.close()
        slot.is_closed = True
        self._slots.discard(slot)

    def _sever(self, slot: Slot) -> None:
        """Close a possibly broken connection without sending anything, which could block."""
        sockets.sever(slot.connection)
        slot.record.invalidate()
        slot.connection.close()  # None if an earlier close was interrupted
        slot.is_closed = True
        self._slots.discard(slot)

    def _is_clean(self, slot: Slot, lease: Lease) -> bool:
        """Return True if a connection is reusable after its transaction was rolled back and its session reset."""
        if self._is_untouched(slot, lease):
            return True
        if not slot.can_be_cleaned or slot.generation != self._generation:
            return False
        try:
            with sockets.severed_after(slot.connection, self._timeout):
                slot.close_cursors(lease.named_cursors)
                if not session.end_transaction(slot.connection):
                    return False
                if self._resets(lease):
                    session.reset_session(slot.connection)
                    self.meter.count("resets")
                slot.restore()
        except (slot.connection.Error, OSError, sockets.SeveredError):  # a session that cannot be reset is closed
            return False
        return True

    def _is_untouched(self, slot: Slot, lease: Lease) -> bool:
        """Return True if a connection is reusable as it is; the server is not queried."""
        return (
            slot.is_idle()
            and slot.generation == self._generation
            and not lease.is_touched
            and not lease.named_cursors
            and not self._resets(lease)
        )

    def _resets(self, lease: Lease) -> bool:
        if self.settings.RESET == "seen":  # statements on the driver's connection itself were not seen
            return lease.leaves_state or lease.is_touched
        return self.settings.RESET == "always"

    def _timeout_error(self, waited_s: float, reason: str) -> PoolTimeoutError:
        held = max(self.leases(), key=Lease.held_s, default=None)
        in_use = len(self._leases)
        use = PoolUse(
            self.settings.POOL_SIZE, self.settings.MAX_OVERFLOW, in_use, self.waiting + 1, self.checkedout() - in_use
        )
        longest = f"longest held: {held.held_s():.1f} s by {held.holder}" if held else ""
        return PoolTimeoutError(self.alias, waited_s, use, longest, reason)
