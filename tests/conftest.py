"""Helpers and fixtures of all tests; those of the test run itself are in tests/plugin.py."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import hypothesis
import pytest

from sandbox.servers import Place

# No deadline for an example, because the machine may be slow.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

T = TypeVar("T")

# Long enough for any event on a busy machine, so that only an event that never happens takes this long.
DEADLINE_S = 60
FOLDERS = ("acceptance", "integration", "unit")


def await_that(condition: Callable[[], T], what: str = "it", timeout_s: float = DEADLINE_S) -> T:
    """Wait until a condition of another process or thread is true; return its value."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        time.sleep(0.01)
    return answer


class Stopwatch:
    """The duration of a block: an upper limit for durations measured inside it, however slow the machine is."""

    def __enter__(self) -> "Stopwatch":
        self._begun_at = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.s = time.perf_counter() - self._begun_at

    @property
    def ms(self) -> float:
        """Return the duration in milliseconds."""
        return self.s * 1000


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process (SIGSTOP) during a block: its sockets accept connections but never answer.

    After DEADLINE_S the process continues and the block fails, because the block must not wait for the process.
    """
    continued = threading.Event()

    def thaw() -> None:
        continued.set()
        os.kill(pid, signal.SIGCONT)

    timer = threading.Timer(DEADLINE_S, thaw)
    os.kill(pid, signal.SIGSTOP)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with suppress(ProcessLookupError):  # the block may have ended the process
            os.kill(pid, signal.SIGCONT)
    assert not continued.is_set(), f"the block waited for the stopped process {pid}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest modules first, those that start the services, so that no process ends long after the others."""
    items.sort(key=lambda item: FOLDERS.index(item.path.parent.name))


@pytest.fixture(scope="session")
def django_db_modify_db_settings_parallel_suffix() -> None:
    """Keep the database's name: each process of a parallel run has its own servers."""


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """Do not drop the database: it is removed with its server, without waiting for open connections."""
    return True


@pytest.fixture(scope="session")
def django_db_setup(servers: Place, django_db_setup: None) -> None:
    """Start the servers before pytest-django creates its database on them."""
