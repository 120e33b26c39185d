"""The engine under everything at once: no permit is lost, no connection checked out twice, the counters add up."""

import gc
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from poolhouse.errors import PoolTimeoutError
from tests.integration.test_engine import OURS, MakePool, _database, ask, borrowed, pid_of, pool, pool_of

__all__ = ["_database", "pool_of"]

SIZE, OVERFLOW, THREADS, ROUNDS = 3, 2, 12, 40


class Borrower:
    """A thread that uses connections in every way, in an order decided by its seed."""

    def __init__(self, alias: str, seed: int, lent_now: Counter[int], lock: threading.Lock) -> None:
        self.alias, self.chance = alias, random.Random(seed)
        self.lent_now, self.lock = lent_now, lock

    def run(self) -> Counter[str]:
        """Borrow again and again; give how often what happened."""
        happened: Counter[str] = Counter()
        for _ in range(ROUNDS):
            action = self.chance.choice([*[self.query] * 8, *[self.fail, self.die, self.leave_state] * 3, self.forget])
            try:
                action(connections.create_connection(self.alias))
                happened[action.__name__] += 1
            except PoolTimeoutError:
                happened["timeout"] += 1
        return happened

    def query(self, wrapper: BaseDatabaseWrapper) -> None:
        try:
            pid = ask(wrapper, "SELECT pg_backend_pid()")
            with self.lock:
                self.lent_now[pid] += 1
                assert self.lent_now[pid] == 1, f"connection {pid} is lent twice"
            ask(wrapper, f"SELECT pg_sleep({self.chance.uniform(0, 0.01)})::text")
            with self.lock:
                self.lent_now[pid] -= 1
        finally:
            wrapper.close()

    def fail(self, wrapper: BaseDatabaseWrapper) -> None:
        wrapper.ensure_connection()
        wrapper.set_autocommit(False)
        with suppress(Error):
            ask(wrapper, "SELECT 1 / 0")
        wrapper.close()  # in a failed transaction

    def die(self, wrapper: BaseDatabaseWrapper) -> None:
        with suppress(Error):
            ask(wrapper, "SELECT pg_terminate_backend(pg_backend_pid())")
        wrapper.close()

    def forget(self, wrapper: BaseDatabaseWrapper) -> None:
        """Use a connection in a thread that ends without closing it."""
        del wrapper
        thread = threading.Thread(target=lambda: ask(connections.create_connection(self.alias), "SELECT 1"))
        thread.start()
        thread.join()

    def leave_state(self, wrapper: BaseDatabaseWrapper) -> None:
        ask(wrapper, "SELECT set_config('work_mem', '7MB', false)")
        wrapper.close()


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("lifo", [False, True])
def test_no_connection_is_lost_or_checked_out_twice(pool_of: MakePool, seed: int, lifo: bool) -> None:
    alias = pool_of(OURS, POOL_SIZE=SIZE, MAX_OVERFLOW=OVERFLOW, TIMEOUT=20, RECYCLE=1, PRE_PING=True, USE_LIFO=lifo)
    lent_now: Counter[int] = Counter()
    lock = threading.Lock()
    borrowers = [Borrower(alias, seed * 1000 + number, lent_now, lock) for number in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as threads, kept(alias):
        happened: Counter[str] = sum(threads.map(Borrower.run, borrowers), Counter())
    gc.collect()
    assert happened["timeout"] == 0
    assert happened.total() == THREADS * ROUNDS
    made = pool(alias)
    assert (made.leases(), made.waiting) == ([], 0)
    counts: dict[str, Any] = made.meter.read()
    assert counts["counts"]["lent"] == counts["wait"].count == counts["hold"].count == happened.total() + 1
    assert counts["counts"]["resets"] == happened["leave_state"]
    assert counts["counts"]["invalidated"] >= happened["die"]
    assert_all_slots_can_be_lent(alias)
    assert made.open == backends_of(alias)


@contextmanager
def kept(alias: str) -> Iterator[None]:
    """Do for a block what the background thread does at every interval."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(0.2):
            pool(alias).recover_abandoned()

    pid_of(alias)
    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()


def assert_all_slots_can_be_lent(alias: str) -> None:
    held = [borrowed(alias) for _ in range(SIZE + OVERFLOW)]
    pids = {ask(one.__enter__(), "SELECT pg_backend_pid()") for one in held}
    assert len(pids) == SIZE + OVERFLOW
    for one in held:
        one.__exit__(None, None, None)
    assert pool(alias).open <= SIZE


def backends_of(alias: str) -> int:
    """Return the number of the server's sessions of this alias; closed ones may take a moment to end."""
    name = connections.settings[alias]["OPTIONS"]["application_name"]
    with borrowed(DEFAULT_DB_ALIAS) as wrapper:
        question = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'"
        for _ in range(200):
            if (count := ask(wrapper, question)) == pool(alias).open:
                break
            ask(wrapper, "SELECT pg_sleep(0.01)::text")
        return int(count)
