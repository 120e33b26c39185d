"""Who may have a connection: a bounded number of places, idle connections in some, and those who wait, in their order.

A place is idle (a connection lies in it), lent, or being opened; there are never more than size and overflow, and
nobody waits while one is free. What is given back goes to whoever has waited longest, straight into their hand: who
comes by in the meantime cannot take it away.

The lock guards a number and two queues: nothing is opened, closed, logged or asked under it. It is reentrant, and each
call leaves them whole, since the collector or a signal may have this very thread give a connection back in the midst.
"""

import threading
from collections import deque
from enum import Enum
from typing import Final, Generic, Literal, TypeVar

T = TypeVar("T")


class Answer(Enum):
    """What a caller gets that is no connection."""

    OPEN_ONE = "a place without a connection: who has it opens one"
    WAIT = "no place is free"


OPEN_ONE: Final = Answer.OPEN_ONE
WAIT: Final = Answer.WAIT


class Waiter(Generic[T]):
    """Somebody who waits for a place."""

    __slots__ = ("_called", "gift")

    def __init__(self) -> None:
        self._called = threading.Lock()
        self._called.acquire()
        self.gift: T | Literal[Answer.OPEN_ONE, Answer.WAIT] = WAIT

    def wait(self, timeout_s: float) -> bool:
        """Wait until a place is given; False: it took too long."""
        return self._called.acquire(timeout=max(0.0, timeout_s))

    def serve(self, gift: T | Literal[Answer.OPEN_ONE]) -> None:
        """Give it a place."""
        self.gift = gift
        self._called.release()


class Places(Generic[T]):
    """The places of a pool. Who has taken one gives it back, once: by `put` with its connection, or by `free`."""

    def __init__(self, size: int, overflow: int, *, lifo: bool) -> None:
        """Make them, all free.

        Args:
            size: how many connections are kept when nobody needs them.
            overflow: how many there may be above that; -1: any.
            lifo: the connection that was given back last is taken first.
        """
        self.size = size
        self._most = size + overflow if overflow >= 0 else None
        self._lock = threading.RLock()
        self._idle: deque[T] = deque()
        self._next_idle = self._idle.pop if lifo else self._idle.popleft
        self._waiters: deque[Waiter[T]] = deque()
        self.count = 0
        """places that are not free: idle, lent or being opened"""

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiters)

    @property
    def idle(self) -> int:
        """How many connections nobody uses."""
        return len(self._idle)

    def idle_ones(self) -> list[T]:
        """Give the connections that nobody uses now."""
        return list(self._idle)

    def take(self) -> T | Answer:
        """Take a place if one is free and nobody waits for it: with a connection if there is an idle one."""
        with self._lock:
            return WAIT if self._waiters else self._take()

    def _take(self) -> T | Answer:
        if self._idle:
            return self._next_idle()
        if self._most is not None and self.count >= self._most:
            return WAIT
        self.count += 1
        return OPEN_ONE

    def join(self) -> Waiter[T]:
        """Stand in line, behind whoever waits already. Who does that calls `leave`, whatever happens in between."""
        waiter: Waiter[T] = Waiter()
        with self._lock:
            self._waiters.append(waiter)
            answer = self._take()  # since the caller looked, one may have become free: it is the first waiter's
            if answer is OPEN_ONE:
                self.free()
            elif answer is not WAIT:
                self.put(answer)
        return waiter

    def leave(self, waiter: Waiter[T]) -> T | Answer:
        """Stand in line no longer; give the place that the waiter has got, perhaps in this moment, or WAIT."""
        with self._lock:
            if waiter.gift is WAIT:
                self._waiters.remove(waiter)
            return waiter.gift

    def exchange(self) -> T | Answer:
        """Give a place without a connection back for one that has an idle one; if none has, keep it, to open one."""
        with self._lock:
            if not self._idle:
                return OPEN_ONE
            other = self._next_idle()
            self.count -= 1
            return other

    def put(self, connection: T) -> bool:
        """Give a place back with its connection; False: there are enough, so it is to be closed and the place freed."""
        with self._lock:
            if self._waiters:
                self._waiters.popleft().serve(connection)
            elif self.count > self.size:
                return False
            else:
                self._idle.append(connection)
            return True

    def free(self) -> None:
        """Give a place back that has no connection any more."""
        with self._lock:
            if self._waiters:
                self._waiters.popleft().serve(OPEN_ONE)
            else:
                self.count -= 1

    def reserve(self, least: int) -> bool:
        """Take a place without a connection if fewer than these are not free."""
        with self._lock:
            if self.count >= least:
                return False
            self.count += 1
            return True

    def withdraw(self, connection: T) -> bool:
        """Take the place of one idle connection, if it still is idle; who has done so gives it back."""
        with self._lock:
            try:
                self._idle.remove(connection)
            except ValueError:
                return False
            return True
