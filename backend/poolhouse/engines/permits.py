"""Permits to have a connection open, the idle connections, and the waiters, served first in, first out.

A permit is taken before a connection is opened, and the connection refers to it until it is closed: idle, in use or
being opened. A connection that is checked in is handed directly to the longest waiter: a newcomer cannot take it.

A permit can be neither lost nor returned twice: it is free once it was released, which may be done more than once, or
once nothing refers to it. So an exception may be raised between any two lines, as by a signal handler, a greenlet's
timeout or Celery's soft time limit: the frames that it leaves lose their references.

The lock guards two queues and a set: nothing is opened, closed, logged or queried under it. It is reentrant, since a
signal handler may make this very thread check in a connection in the middle of a call. For the same reason each call
makes its change in one step and then serves the waiters; if it is interrupted in between, the next call serves them.
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

    __slots__ = ("__weakref__", "_called", "received")

    def __init__(self) -> None:
        self._called = threading.Lock()
        self._called.acquire()
        self.received: T | Permit | None = None

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is served; return False after the timeout."""
        return self._called.acquire(timeout=max(0.0, timeout_s)) or self.received is not None

    def serve(self, received: T | Permit) -> None:
        """Hand over a connection or a permit, unless a signal handler has done so in the meantime."""
        if self.received is None:
            self.received = received
            self._called.release()


class Permits(Generic[T]):
    """The permits of a pool; T is a connection, which refers to its permit."""

    def __init__(self, size: int, overflow: int, *, lifo: bool) -> None:
        """Create the permits, all of them free.

        Args:
            size: how many connections stay open when they are idle.
            overflow: how many may be open above that; -1: any number.
            lifo: check out the connection first that was checked in last.
        """
        self.size = size
        self._most = size + overflow if overflow >= 0 else None
        self._lock = threading.RLock()
        self._taken: Alive[Permit] = Alive()
        self._idle: deque[T] = deque()
        self._next_idle = self._idle.pop if lifo else self._idle.popleft
        self._waiters: deque[ref[Waiter[T]]] = deque()  # weak: a caller that has gone is never served

    @property
    def count(self) -> int:
        """The permits taken, for connections that are idle, in use or being opened."""
        return len(self._taken)

    @property
    def waiting(self) -> int:
        """The number of callers that wait to be served."""
        return sum(
            waiter is not None and waiter.received is None for waiter in [found() for found in list(self._waiters)]
        )

    @property
    def idle(self) -> int:
        """The number of idle connections."""
        return len(self._idle)

    def idle_ones(self) -> list[T]:
        """Return the connections that are idle now."""
        return list(self._idle)

    def take(self) -> T | Permit | None:
        """Return an idle connection or a permit to open one, or None if the caller has to wait."""
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
        """Add a waiter at the end. Its caller must call `leave`, whatever happens in between."""
        with self._lock:
            self._waiters.append(ref(waiter))
            self.serve()  # one may have become free since the caller tried; it belongs to the first waiter

    def leave(self, waiter: Waiter[T]) -> T | Permit | None:
        """Remove a waiter, and return what it was served, perhaps at this moment."""
        with self._lock:
            _remove(self._waiters, ref(waiter))
            return waiter.received

    def serve(self) -> None:
        """Hand free connections and permits to the waiters in order."""
        with self._lock:
            while self._waiters:
                first = self._waiters[0]
                waiter = first()
                if waiter is not None and waiter.received is None:
                    if (received := self._take()) is None:
                        return
                    waiter.serve(received)
                _remove(self._waiters, first)

    def exchange(self, permit: Permit) -> T | Permit:
        """Exchange a permit for an idle connection with its own permit, or return the permit if none is idle."""
        with self._lock:
            if not self._idle:
                return permit
            other = self._next_idle()
            self.release(permit)
            return other

    def put(self, connection: T) -> bool:
        """Check in a connection; return False if it is an overflow connection, to be closed and its permit released."""
        with self._lock:
            self.serve()  # so that a caller that has gone is not counted as a waiter
            if not self._waiters and len(self._taken) > self.size:
                return False
            self._idle.append(connection)
            self.serve()
            return True

    def release(self, permit: Permit) -> None:
        """Release a permit; releasing it twice is not an error."""
        with self._lock:
            self._taken.discard(permit)
            self.serve()

    def reserve(self, least: int) -> Permit | None:
        """Return a permit if fewer than `least` are taken, else None."""
        with self._lock:
            return self._permit() if len(self._taken) < least else None

    def withdraw(self, connection: T) -> bool:
        """Remove this connection from the idle ones; return False if it is no longer idle."""
        with self._lock:
            return _remove(self._idle, connection)


def _remove(queue: deque[Any], one: object) -> bool:
    """Remove an object from a queue; return False if another call was faster."""
    try:
        queue.remove(one)
    except ValueError:
        return False
    return True
