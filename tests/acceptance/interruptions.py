"""Checkouts that are broken off in a process of gunicorn's or Celery's, and what its pool is afterwards."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from traceback import walk_tb
from typing import Any

from django.db import connection, connections

PATIENCE_S = 30


@contextmanager
def checked_out() -> Iterator[Any]:
    """Hold a connection for the length of a block."""
    wrapper = connections.create_connection("default")
    try:
        wrapper.ensure_connection()
        yield wrapper
    finally:
        wrapper.close()


def ask(question: str) -> Any:
    """Check a connection out, ask the server, and check it in."""
    with checked_out() as wrapper, wrapper.cursor() as cursor:
        cursor.execute(question)
        return cursor.fetchone()[0]


def use_a_new_one() -> None:
    """Check out a connection that has to be opened."""
    pool().dispose()
    ask("SELECT 1")


def pool() -> Any:
    """Return the pool of this process."""
    return connection.lending_pool()  # type: ignore[attr-defined]  # the engine's


def size() -> int:
    """Return how many connections may be open."""
    made = pool()
    return int(made.settings.POOL_SIZE + made.settings.MAX_OVERFLOW)


@contextmanager
def all_checked_out() -> Iterator[list[Any]]:
    """Hold as many connections as may be open for the length of a block."""
    with ExitStack() as held:
        yield [held.enter_context(checked_out()) for _ in range(size())]


def is_within_bounds() -> bool:
    """Return True if the pool counts no more connections than may be open, and none below zero."""
    made = pool()
    return bool(0 <= made.checkedout() <= size() and made.open <= size())


def place_of(error: BaseException) -> str:
    """Return the name of the engine's function that was interrupted."""
    passed = [frame for frame, _ in walk_tb(error.__traceback__)]
    names = [one.f_code.co_name for one in passed if one.f_globals["__name__"].startswith("poolhouse.engines.")]
    return names[-1] if names else "elsewhere"


def figures() -> dict[str, int]:
    """Return what the pool and the server count while everything is checked out, and the pool after that."""
    made = pool()
    with all_checked_out() as wrappers:
        pids = {wrapper.connection.info.backend_pid for wrapper in wrappers}
        held = {"lent": len(pids), "open": made.open, "in use": made.checkedout(), "sessions": sessions(wrappers[0])}
    return held | {"in use afterwards": made.checkedout(), "waiting": made.waiting, "idle": made.checkedin()}


def sessions(wrapper: Any) -> int:
    """Return how many sessions of this application the server has, once those that were closed have ended."""
    name = "current_setting('application_name')"
    deadline = time.monotonic() + PATIENCE_S
    with wrapper.cursor() as cursor:
        while True:
            cursor.execute(f"SELECT count(*) FROM pg_stat_activity WHERE application_name = {name}")
            (count,) = cursor.fetchone()
            if count <= size() or time.monotonic() > deadline:
                return int(count)
            time.sleep(0.05)


def sound(size: int) -> dict[str, int]:
    """Return what the figures are if no permit was lost, and no connection is lent twice or left open."""
    held = dict.fromkeys(["lent", "open", "in use", "sessions"], size)
    return held | {"in use afterwards": 0, "waiting": 0, "idle": size}
