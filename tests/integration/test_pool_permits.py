"""Permits: compared with a plain model, with threads, and with check-ins by the garbage collector."""

import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from poolhouse.engines.permits import Permit, Permits, Waiter
from tests.conftest import DEADLINE_S

SIZE, OVERFLOW, THREADS, ROUNDS = 2, 1, 8, 300


class Opened:
    """Stands for a connection of a pool."""

    def __init__(self, permit: Permit) -> None:
        self.permit = permit


class PermitsMachine(RuleBasedStateMachine):
    """The operations on permits, in any order."""

    @initialize(size=st.integers(1, 3), overflow=st.integers(-1, 2), lifo=st.booleans())
    def begin(self, size: int, overflow: int, lifo: bool) -> None:
        self.permits: Permits[Opened] = Permits(size, overflow, lifo=lifo)
        self.size, self.most, self.lifo = size, size + overflow if overflow >= 0 else 10**9, lifo
        self.idle: list[Opened] = []
        self.lent: list[Opened] = []
        self.opening: list[Permit] = []
        self.waiters: list[Waiter[Opened]] = []

    @property
    def taken(self) -> int:
        return len(self.idle) + len(self.lent) + len(self.opening)

    def receive(self, answer: Opened | Permit | None, expected: Opened | type[Permit] | None) -> None:
        """Expect a certain connection, any permit, or nothing."""
        if isinstance(answer, Permit):
            assert expected is Permit
            self.opening.append(answer)
        else:
            assert answer is expected
            if answer is not None:
                self.lent.append(answer)

    def expected(self) -> Opened | type[Permit] | None:
        if self.idle:
            return self.idle.pop(-1 if self.lifo else 0)
        return Permit if self.taken < self.most else None

    @precondition(lambda self: not self.waiters)
    @rule()
    def take(self) -> None:
        expected = self.expected()
        self.receive(self.permits.take(), expected)

    @precondition(lambda self: self.waiters)
    @rule()
    def nobody_passes_who_waits(self) -> None:
        assert self.permits.take() is None

    @rule()
    def join(self) -> None:
        expected = None if self.waiters else self.expected()
        waiter: Waiter[Opened] = Waiter()
        self.permits.join(waiter)
        assert waiter.wait(0) == (expected is not None)
        if expected is None:
            self.waiters.append(waiter)
        else:
            self.receive(self.permits.leave(waiter), expected)

    @precondition(lambda self: self.waiters)
    @rule(data=st.data(), is_broken_off=st.booleans())
    def give_up(self, data: st.DataObject, is_broken_off: bool) -> None:
        waiter = self.waiters.pop(data.draw(st.integers(0, len(self.waiters) - 1)))
        if not is_broken_off:  # else nobody refers to it any more
            assert self.permits.leave(waiter) is None

    @precondition(lambda self: self.opening)
    @rule()
    def open(self) -> None:
        self.lent.append(Opened(self.opening.pop()))

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def put(self, data: st.DataObject) -> None:
        connection = self.lent.pop(data.draw(st.integers(0, len(self.lent) - 1)))
        is_too_many = self.taken >= self.size
        kept = self.permits.put(connection)
        if self.waiters:
            assert kept
            self.serve(connection)
        elif is_too_many:
            assert not kept
            self.permits.release(connection.permit)
        else:
            assert kept
            self.idle.append(connection)

    @precondition(lambda self: self.opening)
    @rule()
    def fail_to_open(self) -> None:
        permit = self.opening.pop()
        for _ in range(2):  # it may be said twice
            self.permits.release(permit)
        if self.waiters:
            self.serve(Permit)

    @precondition(lambda self: self.opening or self.lent)
    @rule()
    def lose(self) -> None:
        """Nobody refers to it any more: an exception came in between."""
        (self.opening or self.lent).pop()
        self.permits.serve()  # as a waiter does that looks again
        if self.waiters:
            self.serve(Permit)

    @precondition(lambda self: self.lent)
    @rule()
    def exchange(self) -> None:
        dead = self.lent.pop()  # it was found dead, and closed
        expected = self.expected() if self.idle else Permit
        self.receive(self.permits.exchange(dead.permit), expected)

    @rule(least=st.integers(0, 3))
    def reserve(self, least: int) -> None:
        least = min(least, self.size)
        expected = Permit if self.taken < least else None
        self.receive(self.permits.reserve(least), expected)

    @precondition(lambda self: self.idle)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        connection = self.idle.pop(data.draw(st.integers(0, len(self.idle) - 1)))
        assert self.permits.withdraw(connection)
        assert not self.permits.withdraw(connection)
        self.lent.append(connection)

    def serve(self, gift: Opened | type[Permit]) -> None:
        first = self.waiters.pop(0)
        assert first.wait(0)
        assert all(not waiter.wait(0) for waiter in self.waiters)
        self.receive(self.permits.leave(first), gift)

    @invariant()
    def they_add_up(self) -> None:
        assert self.permits.idle_ones() == self.idle
        assert self.permits.count == self.taken <= self.most
        assert self.permits.waiting == len(self.waiters)
        assert not (self.waiters and (self.idle or self.permits.count < self.most)), "somebody waits for what is free"


TestPermits = PermitsMachine.TestCase
TestPermits.settings = settings(max_examples=80, stateful_step_count=60, deadline=None, database=None)


class Connection:
    """Stands for a connection, and detects two simultaneous holders."""

    def __init__(self, permit: Permit) -> None:
        self.permit = permit
        self._free = threading.Lock()

    @contextmanager
    def used(self) -> Iterator[None]:
        assert self._free.acquire(blocking=False), "it was lent twice"
        try:
            yield
        finally:
            self._free.release()


@pytest.mark.parametrize("lifo", [False, True])
def test_no_permit_is_lost_and_every_thread_is_served(lifo: bool) -> None:
    permits: Permits[Connection] = Permits(SIZE, OVERFLOW, lifo=lifo)
    waits_s: list[float] = []

    def take() -> Connection:
        began_at = time.perf_counter()
        taken = permits.take()
        if taken is None:
            waiter: Waiter[Connection] = Waiter()
            permits.join(waiter)
            assert waiter.wait(DEADLINE_S)
            taken = permits.leave(waiter)
        waits_s.append(time.perf_counter() - began_at)
        assert taken is not None
        return Connection(taken) if isinstance(taken, Permit) else taken

    def work(number: int) -> None:
        for turn in range(ROUNDS):
            connection = take()
            with connection.used():
                assert permits.count <= SIZE + OVERFLOW
                time.sleep(0)
            if (turn + number) % 7 == 0 or not permits.put(connection):  # some die
                permits.release(connection.permit)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(work, range(THREADS)))
    assert len(waits_s) == THREADS * ROUNDS
    assert (permits.count, permits.waiting) == (permits.idle, 0)
    assert permits.idle <= SIZE


def test_waiters_are_served_first_in_first_out() -> None:
    permits: Permits[Opened] = Permits(1, 0, lifo=True)
    permit = permits.take()
    assert isinstance(permit, Permit)
    waiters: list[Waiter[Opened]] = [Waiter() for _ in range(4)]
    for waiter in waiters:
        permits.join(waiter)
    connection = Opened(permit)
    for number, waiter in enumerate(waiters):
        assert permits.put(connection)
        assert permits.take() is None, "a newcomer has passed those that wait"
        assert [other.wait(0) for other in waiters[number:]] == [True] + [False] * (3 - number)
        assert permits.leave(waiter) is connection


def test_an_overflow_connection_is_not_kept_for_a_caller_that_has_gone() -> None:
    permits: Permits[Opened] = Permits(1, 1, lifo=False)
    taken = [permits.take(), permits.take()]
    waiter: Waiter[Opened] = Waiter()
    permits.join(waiter)
    del waiter  # its caller was interrupted, and did not leave
    opened = [Opened(permit) for permit in taken if isinstance(permit, Permit)]
    assert not permits.put(opened[0])
    permits.release(opened[0].permit)
    assert permits.put(opened[1])
    assert (permits.count, permits.idle, permits.waiting) == (1, 1, 0)


def test_a_check_in_by_the_garbage_collector_is_not_lost() -> None:
    permits: Permits[Opened] = Permits(3, 0, lifo=False)
    lent: set[Opened] = set()  # as a pool has them: a collector must not find a permit with what it collects
    returned = 0

    class Forgotten:
        def __init__(self, taken: Opened | Permit) -> None:
            self.me = self  # so that it waits for the collector
            self.connection = Opened(taken) if isinstance(taken, Permit) else taken
            lent.add(self.connection)

        def __del__(self) -> None:
            nonlocal returned
            returned += 1
            if not permits.put(self.connection):
                permits.release(self.connection.permit)
            lent.discard(self.connection)

    threshold = gc.get_threshold()
    gc.set_threshold(1)  # at nearly every allocation: those of the waiters and of the exceptions too
    try:
        for _ in range(2000):
            if (taken := permits.take()) is None:
                waiter: Waiter[Opened] = Waiter()
                permits.join(waiter)
                taken = permits.leave(waiter)
                del waiter
            if taken is not None:
                Forgotten(taken)
            del taken
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    permits.serve()
    assert returned > 0
    assert (permits.count, permits.waiting) == (permits.idle, 0)
