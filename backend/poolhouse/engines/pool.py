"""A pool that gives a connection or an error in time, keeps its time and tells what it does."""

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
from weakref import WeakValueDictionary

from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool import QueuePool
from sqlalchemy.pool.base import _ConnectionRecord

from poolhouse.conf import options
from poolhouse.engines import leaks, session, sockets
from poolhouse.engines.connecting import Attempt, TooSlowError
from poolhouse.engines.lending import Lease, LentConnection, frames_here
from poolhouse.engines.options import PoolOptions
from poolhouse.engines.places import OPEN_ONE, WAIT, Places
from poolhouse.engines.slot import Slot, identity_of
from poolhouse.errors import PoolTimeoutError, PoolUse
from poolhouse.measures.meter import Meter
from poolhouse.tracing.work import current_work

logger = logging.getLogger(__name__)

# What a ping may take of the TIMEOUT, and at most: the rest is for the new connection that replaces a dead one.
PING_SHARE, PING_MAX_S = 0.5, 5.0
# How often who waits looks whether somebody has forgotten a connection.
LOOK_INTERVAL_S = 0.1
# A collection stops every thread for as long as it takes, which in a large process is a tenth of a second.
COLLECT_INTERVAL_S = 1.0

# SQLAlchemy writes a line for each connection that is closed; they are counted here. ECHO brings the lines back.
logging.getLogger(f"{__name__}.LendingPool").setLevel(logging.WARNING)


Params = dict[str, Any]
Open = Callable[[Params], Any]
"""opens a connection of the driver's"""


class _NothingFreeError(Exception):
    """No place within the time."""


class LendingPool(QueuePool):
    """SQLAlchemy's pool of one alias, with places that are handed on in the order in which they were asked for."""

    def __init__(self, alias: str, settings: PoolOptions, dialect: Dialect) -> None:
        # QueuePool's own beginning would make the queue that the places are for.
        super(QueuePool, self).__init__(self._connect_for_slot, echo=settings.ECHO, dialect=dialect)
        self.alias, self.settings, self.meter = alias, settings, Meter(alias)
        self.pid = os.getpid()
        self._timeout = settings.TIMEOUT
        self._places: Places[Slot] = Places(settings.POOL_SIZE, settings.MAX_OVERFLOW, lifo=settings.USE_LIFO)
        self._leases: set[Lease] = set()
        self._forgotten: deque[Lease | _ConnectionRecord] = deque()  # a record: of a slot that was lost
        self._slots: WeakValueDictionary[Any, Slot] = WeakValueDictionary()  # by the driver's connection
        self._generation = 0
        self._connecting = threading.local()
        self._may_collect_at = 0.0
        self._notes_frames = options().LEAK_THRESHOLD_S > 0

    def connect(self, params: Params, open_: Open) -> LentConnection:  # type: ignore[override]  # SQLAlchemy's is heavier
        """Lend a connection.

        Args:
            params: what to connect to, and how; those of now, should a new connection be needed.
            open_: opens one; called on another thread.

        Raises:
            PoolTimeoutError: there was none within TIMEOUT.
            the driver's Error: it could not be opened.
        """
        began_at = time.perf_counter()
        try:
            slot = self._take_slot(params, open_, began_at + self._timeout)
        except (_NothingFreeError, TooSlowError) as error:
            self.meter.timed_out(time.perf_counter() - began_at)
            waited_s = time.perf_counter() - began_at
            if (work := current_work()) is not None:
                work.wait_s += waited_s
            raise self._timeout_error(waited_s, str(error)) from None
        try:
            lease = Lease(slot, frames_here() if self._notes_frames else ())
            self._leases.add(lease)
            waited_s = lease.began_at - began_at
            if lease.work is not None:
                lease.work.wait_s += waited_s
                lease.work.took(lease.began_at)
            self.meter.lent(waited_s)
            return LentConnection(slot.connection, lease, self)
        except BaseException:  # a signal's
            self._leases = {other for other in self._leases if other.slot is not slot}
            self._settle(slot, is_clean=False)
            raise

    def leases(self) -> list[Lease]:
        """Give the connections that are lent now."""
        self._take_back_forgotten()
        return list(self._leases)

    def age_s(self, connection: Any) -> float:
        """Give how long ago a connection of this pool was opened, by the driver's object."""
        return time.perf_counter() - self._slots[connection].opened_at

    @property
    def open(self) -> int:
        """How many connections are open, lent or not."""
        return len(self._slots)

    @property
    def waiting(self) -> int:
        """How many callers wait for a connection."""
        return self._places.waiting

    def size(self) -> int:
        """Give how many connections are kept."""
        return self._places.size

    def checkedin(self) -> int:
        """Give how many connections nobody uses."""
        return self._places.idle

    def checkedout(self) -> int:
        """Give how many are lent, or being opened."""
        return max(0, self._places.count - self._places.idle)

    def overflow(self) -> int:
        """Give by how many there are more than are kept; below 0: fewer."""
        return self._places.count - self._places.size

    def keep_warm(self, params: Params, open_: Open, within_s: float | None = None) -> None:
        """Open what is missing of MIN_SIZE.

        Args:
            params: as of `connect`.
            open_: so as well.
            within_s: how long it may take; None: TIMEOUT. What is open later is kept as well.

        Raises:
            the driver's Error, TooSlowError: one could not be opened.
        """
        deadline = time.perf_counter() + (self._timeout if within_s is None else within_s)
        self._drop_what_the_server_closed()
        while self._places.reserve(self.settings.MIN_SIZE):
            self._put_back(self._open(params, open_, deadline))

    def find_forgotten(self) -> bool:
        """Take back what was forgotten by threads that have ended; True if anything was.

        Django's wrappers refer to themselves, so they outlive their thread until the collector comes by, which it does
        when much is allocated, and not when everybody waits.
        """
        now = time.perf_counter()
        if now >= self._may_collect_at and not all(lease.thread.is_alive() for lease in self.leases()):
            self._may_collect_at = now + COLLECT_INTERVAL_S
            gc.collect()
        return self._take_back_forgotten()

    def dispose(self) -> None:
        """Close the connections that nobody uses, and the others as they come back."""
        self._generation += 1
        for slot in self._places.idle_ones():
            if self._places.withdraw(slot):
                self._close(slot)

    def recreate(self) -> "LendingPool":
        """Give a new one like it."""
        return LendingPool(self.alias, self.settings, self._dialect)  # type: ignore[arg-type]  # it was given as one

    def disown(self) -> None:
        """Let go, in a forked child, of the sockets that are the parent's."""
        for connection in list(self._slots):
            sockets.disown(connection)

    # Lending.

    def _take_slot(self, params: Params, open_: Open, deadline: float) -> Slot:
        if self._forgotten:
            self._take_back_forgotten()
        place = self._places.take()
        if place is WAIT:
            place = self._wait(deadline)
        while isinstance(place, Slot):
            if self._is_fit(place, params, deadline):
                return place
            place = self._places.exchange()  # another idle one is as good
        slot = self._open(params, open_, deadline)
        if (work := current_work()) is not None:
            work.opened_count += 1
        return slot

    def _wait(self, deadline: float) -> Any:
        """Wait in line for a place.

        Raises:
            _NothingFreeError: the deadline has passed.
        """
        waiter, place = self._places.join(), None
        try:
            while not waiter.wait(min(LOOK_INTERVAL_S, deadline - time.perf_counter())):
                if time.perf_counter() >= deadline:
                    break
                self.find_forgotten()
            place = waiter.gift
        finally:
            given = self._places.leave(waiter)
            if place is None and given is not WAIT:  # a signal's exception, or a greenlet's timeout
                self._places.free() if given is OPEN_ONE else self._put_back(given)
        if given is WAIT:
            is_opening = self.checkedout() > len(self._leases)
            raise _NothingFreeError(f"every connection is lent{' or being opened' if is_opening else ''}")
        return given

    def _is_fit(self, slot: Slot, params: Params, deadline: float) -> bool:
        """Say whether an idle connection can be lent; if not, it is closed, and its place kept."""
        try:
            if slot.identity != identity_of(params):  # the settings were changed: it leads to somewhere else
                self._discard(slot)
                return False
            now = time.perf_counter()
            if 0 <= self.settings.RECYCLE < now - slot.opened_at:
                self.meter.count("recycled")
                self._discard(slot)
                return False
            if slot.generation == self._generation:
                is_due = self.settings.PRE_PING and now - slot.returned_at > self.settings.PING_IDLE_S
                if not (is_due or slot.has_word()) or self._answers(slot, deadline):
                    return True
        except BaseException:  # a signal's, or a greenlet's timeout
            self._settle(slot, is_clean=False)
            raise
        self.meter.count("invalidated")
        self._sever(slot)
        return False

    def _answers(self, slot: Slot, deadline: float) -> bool:
        """Ask an idle connection for a sign of life where looking does not tell."""
        full_s = min(PING_MAX_S, self._timeout * PING_SHARE)
        begun_at = time.perf_counter()
        timeout_s = min(full_s, max(0.0, deadline - begun_at) * PING_SHARE)
        if sockets.is_alive(slot.connection, timeout_s):
            return True
        if time.perf_counter() - begun_at >= timeout_s >= full_s / 2:
            # The way to the server is broken, for the others as well, and not each caller should have to find it out.
            self._generation += 1
        return False

    def _open(self, params: Params, open_: Open, deadline: float) -> Slot:
        """Open a connection in a place; if that fails, the place is free again, once the attempt has ended."""
        left_s = deadline - time.perf_counter()
        attempt = Attempt(partial(self._make_slot, params, open_), self._receive_late)
        try:
            if left_s <= 0:
                raise TooSlowError("no time was left to connect")
            return attempt.opened_within(left_s)
        except BaseException:
            if not attempt.is_abandoned:
                self._places.free()
            raise

    def _make_slot(self, params: Params, open_: Open) -> Slot:
        generation, begun_at = self._generation, time.perf_counter()
        self._connecting.connect = partial(open_, params)
        try:
            record = _ConnectionRecord(self)
        except BaseException:
            self.meter.count("connect_errors")
            raise
        slot = Slot(record, identity_of(params), generation, self._forgotten.append)
        self._slots[slot.connection] = slot
        self.meter.connected(slot.opened_at - begun_at)
        return slot

    def _connect_for_slot(self) -> Any:
        """Open a connection for SQLAlchemy's record, which asks for it without a word."""
        return self._connecting.connect()

    def _receive_late(self, slot: Slot | None) -> None:
        """Keep what was opened after its borrower had gone: the next one is as glad of it."""
        if slot is None:
            self._places.free()
        else:
            self._put_back(slot)

    def _drop_what_the_server_closed(self) -> None:
        """Close idle connections that are of no use any more, before somebody is to use them."""
        for slot in self._places.idle_ones():
            if not self._places.withdraw(slot):  # it was lent in the meantime
                continue
            if slot.has_word():
                self._settle(slot, is_clean=False)
            elif not self._places.put(slot):
                self._close(slot)

    # Returning.

    def take_back(self, lease: Lease) -> None:
        """Receive a connection from its borrower."""
        slot, is_clean = lease.slot, False
        if slot is None or os.getpid() != self.pid:  # in a child, what is of the parent's pool is not ours
            return
        try:
            self._end(lease)
            is_clean = self._is_clean(slot, lease)
        finally:
            lease.slot = None
            self._settle(slot, is_clean=is_clean)

    def forget(self, lease: Lease) -> None:
        """Receive a connection from the collector: whoever comes by next looks after it."""
        self._forgotten.append(lease)

    def _take_back_forgotten(self) -> bool:
        """Take back what the collector has found; nobody waits for the server for it."""
        found = False
        while self._forgotten:
            with suppress(IndexError):  # somebody else was faster
                one = self._forgotten.popleft()
                found = True
                if isinstance(one, _ConnectionRecord):
                    sockets.sever(one.dbapi_connection)
                    one.invalidate()
                    self._places.free()
                elif (slot := one.slot) is not None:
                    self._end(one)
                    one.slot = None
                    self._settle(slot, is_clean=self._is_untouched(slot, one))
        return found

    def _end(self, lease: Lease) -> None:
        lease.is_over = True
        self._leases.discard(lease)
        held_s = lease.held_s()
        self.meter.returned(held_s)
        if lease.is_suspect:
            leaks.note_return(self.alias, lease)
        if lease.work is not None:
            lease.work.gave_back(lease.began_at + held_s)
            lease.work = None  # somebody may keep a cursor, and with it all of a request

    def _settle(self, slot: Slot, *, is_clean: bool) -> None:
        if is_clean:
            self._put_back(slot)
        else:
            self.meter.count("invalidated")
            try:
                self._sever(slot)
            finally:
                self._places.free()

    def _put_back(self, slot: Slot) -> None:
        slot.returned_at = time.perf_counter()
        if not self._places.put(slot):
            self._close(slot)

    def _close(self, slot: Slot) -> None:
        """Close a connection, and free its place."""
        try:
            self._discard(slot)
        finally:
            self._places.free()

    def _discard(self, slot: Slot) -> None:
        """Close a connection that is sound."""
        slot.is_given_up = True
        self._slots.pop(slot.connection, None)
        slot.record.close()

    def _sever(self, slot: Slot) -> None:
        """Close a connection that may not be, without a word to the server, which could block."""
        slot.is_given_up = True
        self._slots.pop(slot.connection, None)
        sockets.sever(slot.connection)
        slot.record.invalidate()

    def _is_clean(self, slot: Slot, lease: Lease) -> bool:
        """Say whether a connection can be lent again, once its transaction and its session are brought to an end."""
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
        except Exception:  # noqa: BLE001 - what cannot be brought to an end is closed
            return False
        return True

    def _is_untouched(self, slot: Slot, lease: Lease) -> bool:
        """Say whether a connection can be lent again as it is; nothing is asked of the server."""
        return (
            slot.is_idle()
            and slot.generation == self._generation
            and not lease.is_touched
            and not lease.named_cursors
            and not self._resets(lease)
        )

    def _resets(self, lease: Lease) -> bool:
        return self.settings.RESET == "always" or (self.settings.RESET == "seen" and lease.leaves_state)

    def _timeout_error(self, waited_s: float, reason: str) -> PoolTimeoutError:
        held = max(self.leases(), key=Lease.held_s, default=None)
        in_use = len(self._leases)
        use = PoolUse(
            self.settings.POOL_SIZE, self.settings.MAX_OVERFLOW, in_use, self.waiting + 1, self.checkedout() - in_use
        )
        longest = f"longest held: {held.held_s():.1f} s by {held.holder}" if held else ""
        return PoolTimeoutError(self.alias, waited_s, use, longest, reason)
