"""The database server restarts under load: for how long do requests fail?"""

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import pytest

from sandbox.servers import Place
from tests.acceptance.test_chaos import System
from tests.conftest import DEADLINE_S, await_that
from tests.plugin import free_ports

VISITORS = 8


@dataclass
class Visits:
    """Requests from several threads, one after the other in each: when each began and ended, and if it was served."""

    address: str
    made: list[tuple[float, float, bool]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def visit(self) -> None:
        """Ask until it is over."""
        while not self.over.is_set():
            began_at = time.monotonic()
            try:
                with urlopen(self.address, timeout=DEADLINE_S) as answer:
                    answer.read()
                is_served = True
            except OSError:
                is_served = False
            self.made.append((began_at, time.monotonic(), is_served))

    def within(self, begin: float, end: float) -> list[bool]:
        """Whether the requests that began and ended in a span were served."""
        return [is_served for began_at, ended_at, is_served in self.made if begin <= began_at and ended_at < end]


@pytest.fixture
def system(servers: Place, tmp_path: Path) -> Iterator[System]:
    made = System(servers, tmp_path)
    (port,) = free_ports(1)
    made.environment |= {
        "WEB_PORT": str(port),
        "CELERY_WORKER_RUNNING": "",
        "SERVICE_NAME": "",
        "DB_POOL_TIMEOUT": str(DEADLINE_S),
    }
    try:
        made.timescale.start()
        made.redis.start()
        made.manage("migrate", "--verbosity", "0")
        made.start_service("web")
        yield made
    finally:
        made.stop()


def test_a_restart_of_the_server_fails_no_request_after_the_first_second(system: System) -> None:
    address = f"http://127.0.0.1:{system.environment['WEB_PORT']}/"
    await_that(lambda: is_served(address))
    visits = Visits(address)
    threads = [threading.Thread(target=visits.visit) for _ in range(VISITORS)]
    for thread in threads:
        thread.start()
    await_that(lambda: len(visits.made) > 200)
    stopped_at = time.monotonic()
    os.kill(system.timescale.pid or 0, signal.SIGINT)  # fast: what pg_ctl restart sends
    await_that(lambda: system.timescale.pid is None)
    system.timescale.start()
    back_at = time.monotonic()
    await_that(lambda: len(visits.within(back_at + 1, math.inf)) > 500)
    visits.over.set()
    for thread in threads:
        thread.join()
    assert all(visits.within(0, stopped_at))
    assert not all(visits.within(0, math.inf)), "nothing noticed that the server was away"
    after = visits.within(back_at + 1, math.inf)
    assert all(after), f"{after.count(False)} of {len(after)} requests failed"


def is_served(address: str) -> bool:
    """Say whether the web answers."""
    try:
        with urlopen(address, timeout=DEADLINE_S):
            return True
    except OSError:
        return False
