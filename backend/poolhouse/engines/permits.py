"""Who may have a connection: a bounded number of permits, idle connections, and those who wait, in their order.

A permit is taken for a connection before it is opened, and the connection refers to it until it is closed: idle, in use
or being opened. What is returned goes to the caller that has waited longest, straight into its hand: a newcomer cannot
take it away.

A permit can be neither lost nor returned twice: it is free once it was released, which may be said more than once,
or once nobody refers to it any more. So an exception may be raised between any two lines, as by a signal's handler, a
greenlet's timeout or Celery's soft time limit: what the exception passes on its way loses its references.

The lock guards two queues and a set: nothing is opened, closed, logged or asked under it. It is reentrant, since the
handler of a signal may have this very thread return a connection in the midst of a call. For the same reason a call
makes its change in one step, and then serves those who wait; if it is broken off in between, the next one does that.
"""

import threading
from collections import deque
from typing import Any, Generic, TypeVar
from weakref import ref

from poolhouse.engines.alive import Alive

T = TypeVar("T")


class Permit:
    """The right to have one connection open."""

    __slots__ = ("__weakref__",)


class Waiter(Generic[T]):
    """A caller that waits for a connection, or for a permit to open one."""

    __slots__ = ("__weakref__", "_called", "gift")

    def __init__(self) -> None:
        self._called = threading.Lock()
        self._called.acquire()
        self.gift: T | Permit | None = None

    def wait(self, timeout_s: float) -> bool:
        """Wait until something is served; False: it took too long."""
        return self._called.acquire(timeout=max(0.0, timeout_s)) or self.gift is not None

    def serve(self, gift: T | Permit) -> None:
        """Hand it a connection or a permit, unless the handler of a signal has done so in the meantime."""
        if self.gift is None:
            self.gift = gift
            self._called.release()


class Permits(Generic[T]):
    """The permits of a pool; T is a connection, which refers to its permit."""

    def __init__(self, size: int, overflow: int, *, lifo: bool) -> None:
        """Make them, all free.

        Args:
            size: how many connections are kept when nobody needs them.
            overflow: how many there may be above that; -1: any.
            lifo: the connection that was returned last is taken first.
        """
        self.size = size
        self._most = size + overflow if overflow >= 0 else None
        self._lock = threading.RLock()
        self._taken: Alive[Permit] = Alive()
        self._idle: deque[T] = deque()
        self._next_idle = self._idle.pop if lifo else self._idle.popleft
        self._waiters: deque[ref[Waiter[T]]] = deque()  # weak: nothing is handed to a caller that has gone

    @property
    def count(self) -> int:
        """How many are taken: of connections that are idle, in use or being opened."""
        return len(self._taken)

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return sum(waiter is not None and waiter.gift is None for waiter in [found() for found in list(self._waiters)])

    @property
    def idle(self) -> int:
        """How many connections are idle."""
        return len(self._idle)

    def idle_ones(self) -> list[T]:
        """Return the connections that are idle now."""
        return list(self._idle)

    def take(self) -> T | Permit | None:
        """Take an idle connection, or a permit to open one; None: the caller has to wait."""
        with self._lock:
            return None if self._waiters else self._take()

    def _take(self) -> T | Permit | None:
        if self._idle:
            return self._next_idle()
        if self._most is not None and len(self._taken) >= self._most:
            return None
        return self._permit()

    def _permit(self) -> Permit:
        permit = Permit()
        self._taken.add(permit)
        return permit

    def join(self, waiter: Waiter[T]) -> None:
        """Add a caller behind those that wait already. It calls `leave`, whatever happens in between."""
        with self._lock:
            self._waiters.append(ref(waiter))
            self.serve()  # since the caller looked, one may have become free: it is the first waiter's

    def leave(self, waiter: Waiter[T]) -> T | Permit | None:
        """Let a caller wait no longer; return what it was served, perhaps in this moment."""
        with self._lock:
            _remove(self._waiters, ref(waiter))
            return waiter.gift

    def serve(self) -> None:
        """Hand what is free to those that wait, in their order."""
        with self._lock:
            while self._waiters:
                first = self._waiters[0]
                waiter = first()
                if waiter is not None and waiter.gift is None:
                    if (gift := self._take()) is None:
                        return
                    waiter.serve(gift)
                _remove(self._waiters, first)

    def exchange(self, permit: Permit) -> T | Permit:
        """Release a permit for an idle connection, which has one itself; if none is idle, return the permit."""
        with self._lock:
            if not self._idle:
                return permit
            other = self._next_idle()
            self.release(permit)
            return other

    def put(self, connection: T) -> bool:
        """Return a connection; False: there are enough, so it is to be closed, and its permit released."""
        with self._lock:
            self.serve()  # so that a caller that has gone does not count as one that waits
            if not self._waiters and len(self._taken) > self.size:
                return False
            self._idle.append(connection)
            self.serve()
            return True

    def release(self, permit: Permit) -> None:
        """Free a permit, if it is not free already."""
        with self._lock:
            self._taken.discard(permit)
            self.serve()

    def reserve(self, least: int) -> Permit | None:
        """Take a permit if fewer than these are taken."""
        with self._lock:
            return self._permit() if len(self._taken) < least else None

    def withdraw(self, connection: T) -> bool:
        """Take one idle connection, if it still is idle."""
        with self._lock:
            return _remove(self._idle, connection)


def _remove(queue: deque[Any], one: object) -> bool:
    """Remove an object from a queue; return False if it is not there, perhaps because another call was faster."""
    try:
        queue.remove(one)
    except ValueError:
        return False
    return True
