"""What every test shares beside tests/plugin.py."""

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

# An example may take as long as the machine makes it take.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

T = TypeVar("T")

# For what happens soon on an idle machine, and later on a busy one. Only what never happens takes so long.
DEADLINE_S = 60
FOLDERS = ("acceptance", "integration", "unit")


def await_that(condition: Callable[[], T], what: str = "it", timeout_s: float = DEADLINE_S) -> T:
    """Wait for what another process or thread is about to do; return the condition's answer."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        time.sleep(0.01)
    return answer


class Stopwatch:
    """How long a block took: the bound of what was measured within it, however slow the machine is."""

    def __enter__(self) -> "Stopwatch":
        self._begun_at = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.s = time.perf_counter() - self._begun_at

    @property
    def ms(self) -> float:
        """The same in milliseconds."""
        return self.s * 1000


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process for the length of a block: its sockets accept, and never answer.

    A block that waits for the process fails, however busy the machine is: it ends only after the process goes on.
    """
    goes_on = threading.Event()

    def thaw() -> None:
        goes_on.set()
        os.kill(pid, signal.SIGCONT)

    timer = threading.Timer(DEADLINE_S, thaw)
    os.kill(pid, signal.SIGSTOP)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with suppress(ProcessLookupError):  # a block may let it go on itself, and it ends
            os.kill(pid, signal.SIGCONT)
    assert not goes_on.is_set(), f"the block waited for process {pid}, which was stopped"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest modules, those that run the services, so that no process ends long after the others."""
    items.sort(key=lambda item: FOLDERS.index(item.path.parent.name))


@pytest.fixture(scope="session")
def django_db_modify_db_settings_parallel_suffix() -> None:
    """Leave the database its name: each worker of a parallel run has servers of its own."""


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """Leave the database where it is: it goes with its server, and who is still connected need not be waited for."""
    return True


@pytest.fixture(scope="session")
def django_db_setup(servers: Place, django_db_setup: None) -> None:
    """Start the servers before pytest-django makes its database on them."""
