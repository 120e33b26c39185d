"""Places: against a plain model, under threads, and when the collector gives something back in the midst of it."""

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

from poolhouse.engines.places import OPEN_ONE, WAIT, Answer, Places, Waiter
from tests.conftest import DEADLINE_S

SIZE, OVERFLOW, THREADS, ROUNDS = 2, 1, 8, 300


class PlacesMachine(RuleBasedStateMachine):
    """What places may do, in any order; connections are numbers."""

    @initialize(size=st.integers(1, 3), overflow=st.integers(-1, 2), lifo=st.booleans())
    def begin(self, size: int, overflow: int, lifo: bool) -> None:
        self.places: Places[int] = Places(size, overflow, lifo=lifo)
        self.size, self.most, self.lifo = size, size + overflow if overflow >= 0 else 10**9, lifo
        self.idle: list[int] = []
        self.lent: list[int] = []
        self.opening = 0
        self.waiters: list[Waiter[int]] = []
        self.opened = 0

    def next_idle(self) -> int:
        return self.idle.pop(-1 if self.lifo else 0)

    def receive(self, answer: int | Answer) -> None:
        if answer is OPEN_ONE:
            self.opening += 1
        elif isinstance(answer, int):
            self.lent.append(answer)

    def expected(self) -> int | Answer:
        if self.idle:
            return self.next_idle()
        return OPEN_ONE if len(self.lent) + self.opening < self.most else WAIT

    @precondition(lambda self: not self.waiters)
    @rule()
    def take(self) -> None:
        expected = self.expected()
        assert self.places.take() == expected
        self.receive(expected)

    @precondition(lambda self: self.waiters)
    @rule()
    def nobody_passes_who_waits(self) -> None:
        assert self.places.take() is WAIT

    @rule()
    def join(self) -> None:
        expected = WAIT if self.waiters else self.expected()
        waiter = self.places.join()
        assert waiter.wait(0) == (expected is not WAIT)
        if expected is WAIT:
            self.waiters.append(waiter)
        else:
            assert self.places.leave(waiter) == expected
            self.receive(expected)

    @precondition(lambda self: self.waiters)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        waiter = self.waiters.pop(data.draw(st.integers(0, len(self.waiters) - 1)))
        assert self.places.leave(waiter) is WAIT

    @precondition(lambda self: self.opening)
    @rule()
    def open(self) -> None:
        self.opening -= 1
        self.opened += 1
        self.lent.append(self.opened)

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def put(self, data: st.DataObject) -> None:
        connection = self.lent.pop(data.draw(st.integers(0, len(self.lent) - 1)))
        is_too_many = len(self.idle) + len(self.lent) + self.opening >= self.size
        kept = self.places.put(connection)
        if self.waiters:
            assert kept
            self.serve(connection)
        elif is_too_many:
            assert not kept
            self.places.free()
        else:
            assert kept
            self.idle.append(connection)

    @precondition(lambda self: self.opening)
    @rule()
    def fail_to_open(self) -> None:
        self.opening -= 1
        self.places.free()
        if self.waiters:
            self.serve(OPEN_ONE)

    @precondition(lambda self: self.lent)
    @rule()
    def exchange(self) -> None:
        self.lent.pop()  # it was found dead, and closed
        expected = self.next_idle() if self.idle else OPEN_ONE
        assert self.places.exchange() == expected
        self.receive(expected)

    @rule(least=st.integers(0, 3))
    def reserve(self, least: int) -> None:
        least = min(least, self.size)
        has_room = len(self.idle) + len(self.lent) + self.opening < least
        assert self.places.reserve(least) == has_room
        self.opening += has_room

    @rule(connection=st.integers(1, 6))
    def withdraw(self, connection: int) -> None:
        is_idle = connection in self.idle
        assert self.places.withdraw(connection) == is_idle
        if is_idle:
            self.idle.remove(connection)
            self.lent.append(connection)

    def serve(self, gift: int | Answer) -> None:
        first = self.waiters.pop(0)
        assert first.wait(0)
        assert all(not waiter.wait(0) for waiter in self.waiters)
        assert self.places.leave(first) == gift
        self.receive(gift)

    @invariant()
    def they_add_up(self) -> None:
        assert self.places.idle_ones() == self.idle
        assert self.places.count == len(self.idle) + len(self.lent) + self.opening <= self.most
        assert self.places.waiting == len(self.waiters)
        assert not (self.waiters and (self.idle or self.places.count < self.most)), "somebody waits for what is free"


TestPlaces = PlacesMachine.TestCase
TestPlaces.settings = settings(max_examples=80, stateful_step_count=60, deadline=None, database=None)


class Connection:
    """Stands for a connection, and sees whether two have it at once."""

    def __init__(self) -> None:
        self._free = threading.Lock()

    @contextmanager
    def used(self) -> Iterator[None]:
        assert self._free.acquire(blocking=False), "it was lent twice"
        try:
            yield
        finally:
            self._free.release()


@pytest.mark.parametrize("lifo", [False, True])
def test_under_threads_none_is_lost_and_everybody_has_a_turn(lifo: bool) -> None:
    places: Places[Connection] = Places(SIZE, OVERFLOW, lifo=lifo)
    opened: list[Connection] = []
    waits_s: list[float] = []

    def take() -> Connection:
        began_at = time.perf_counter()
        answer = places.take()
        if answer is WAIT:
            waiter = places.join()
            assert waiter.wait(DEADLINE_S)
            answer = places.leave(waiter)
        waits_s.append(time.perf_counter() - began_at)
        if isinstance(answer, Connection):
            return answer
        assert answer is OPEN_ONE
        opened.append(Connection())
        return opened[-1]

    def work(number: int) -> None:
        for turn in range(ROUNDS):
            connection = take()
            with connection.used():
                assert places.count <= SIZE + OVERFLOW
                time.sleep(0)
            if (turn + number) % 7 == 0 or not places.put(connection):  # some die
                places.free()

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(work, range(THREADS)))
    assert len(waits_s) == THREADS * ROUNDS
    assert (places.count, places.waiting) == (places.idle, 0)
    assert places.idle <= SIZE


def test_waiters_are_served_in_their_order_whoever_comes_by() -> None:
    places: Places[int] = Places(1, 0, lifo=True)
    assert places.take() is OPEN_ONE
    waiters = [places.join() for _ in range(4)]
    for number, waiter in enumerate(waiters):
        assert places.put(number)
        assert places.take() is WAIT, "a newcomer has passed those who wait"
        assert [other.wait(0) for other in waiters[number:]] == [True] + [False] * (3 - number)
        assert places.leave(waiter) == number


def test_what_a_collector_gives_back_in_the_midst_is_not_lost() -> None:
    places: Places[int] = Places(3, 0, lifo=False)
    given_back = 0

    class Forgotten:
        def __init__(self) -> None:
            self.me = self  # so that it waits for the collector

        def __del__(self) -> None:
            nonlocal given_back
            given_back += 1
            if not places.put(given_back):
                places.free()

    threshold = gc.get_threshold()
    gc.set_threshold(1)  # at nearly every allocation: those of the waiters and of the exceptions too
    try:
        for _ in range(2000):
            if places.take() is not WAIT:
                Forgotten()
            else:
                waiter = places.join()
                if places.leave(waiter) is not WAIT:
                    Forgotten()
            places.withdraw(-1)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert given_back > 0
    assert (places.count, places.waiting) == (places.idle, 0)
