"""The pooled engine in a gevent worker of gunicorn's, where threads are greenlets and whoever blocks stops them all."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from config.env import CHECKOUT, Database, read
from sandbox.isolation import free_ports
from sandbox.servers import Place
from tests.integration.conftest import await_that, frozen

TIMEOUT_S = 2
POOL = {"POOL_SIZE": 4, "MAX_OVERFLOW": 0, "TIMEOUT": TIMEOUT_S, "PING_IDLE_S": 0}
COOPERATIVE = [("psycopg2", True), ("psycopg", False)]
EVERY_WAY = [*COOPERATIVE, ("psycopg2", False)]

Serve = Callable[..., "Web"]


class Web:
    """A worker that runs."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, page: str) -> tuple[int, str, float]:
        """Give status, body and how long it took."""
        begun_at = time.monotonic()
        try:
            with urlopen(f"http://127.0.0.1:{self._port}/{page}", timeout=20) as answer:
                return answer.status, answer.read().decode(), time.monotonic() - begun_at
        except HTTPError as error:
            return error.code, error.read().decode(), time.monotonic() - begun_at

    def is_up(self) -> bool:
        """Say whether it answers."""
        try:
            return self.ask("alive")[0] == 200
        except (URLError, ConnectionError):
            return False


@pytest.fixture
def serve(servers: Place, tmp_path: Path) -> Iterator[Serve]:
    """Start gunicorn with one gevent worker."""
    with ExitStack() as stack:
        yield lambda *way, **database: stack.enter_context(_served(tmp_path / "log", *way, **database))


@contextmanager
def _served(log: Path, driver: str, is_cooperative: bool, **database: Any) -> Iterator[Web]:
    (port,) = free_ports(1)
    application = f"tests.acceptance.greenlets:make({driver!r}, {is_cooperative}, {_settings() | database}, {POOL})"
    options = ["--worker-class", "gevent", "--workers", "1", "--bind", f"127.0.0.1:{port}", "--log-level", "warning"]
    folders = ["--pythonpath", f"{CHECKOUT},{CHECKOUT / 'backend'}", "--chdir", str(CHECKOUT)]
    with (
        log.open("w") as output,
        subprocess.Popen(
            [sys.executable, "-m", "gunicorn", application, *options, *folders],
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        try:
            web = Web(port)
            await_that(web.is_up, timeout_s=30)
            yield web
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its worker as well, which may hang


def _settings() -> dict[str, Any]:
    database = read(Database)
    return {
        "HOST": "127.0.0.1",
        "PORT": database.db_port,
        "NAME": database.db_name,
        "USER": database.db_user,
        "PASSWORD": database.db_pass.get_secret_value(),
    }


@contextmanager
def _watched(web: Web) -> Iterator[list[float]]:
    """Ask for a page without the database, again and again; give how long each took."""
    times: list[float] = []
    with ThreadPoolExecutor(1) as watcher:
        is_over = False

        def watch() -> None:
            while not is_over:
                times.append(web.ask("alive")[2])

        watching = watcher.submit(watch)
        try:
            yield times
        finally:
            is_over = True
        watching.result()


@pytest.mark.parametrize("way", COOPERATIVE)
def test_requests_share_few_connections_and_wait_at_the_same_time(serve: Serve, way: tuple[str, bool]) -> None:
    web = serve(*way)
    assert json.loads(web.ask("alive")[1])["patched"]
    begun_at = time.monotonic()
    with ThreadPoolExecutor(20) as askers:
        answers = list(askers.map(web.ask, ["sleep/200"] * 20))
    elapsed_s = time.monotonic() - begun_at
    assert {status for status, _, _ in answers} == {200}
    assert len({body for _, body, _ in answers}) <= 4
    assert 1.0 <= elapsed_s < 3, "five rounds of 0.2 s on four connections, not twenty"


@pytest.mark.parametrize("way", EVERY_WAY)
def test_a_server_that_never_answers_stops_its_callers_in_time_and_nobody_else(
    serve: Serve, way: tuple[str, bool]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts for it
        web = serve(*way, PORT=silent.getsockname()[1])
        with _watched(web) as times, ThreadPoolExecutor(6) as askers:
            answers = list(askers.map(web.ask, ["sleep/0"] * 6))
    for status, body, elapsed_s in answers:
        assert (status, elapsed_s < TIMEOUT_S + 1) == (503, True), (status, body, elapsed_s)
        assert "no connection after" in body
    assert len(times) > 10
    assert max(times) < 1, "requests that need no database went on"


@pytest.mark.parametrize("way", EVERY_WAY)
def test_a_ping_of_a_session_that_hangs_is_over_in_time(serve: Serve, way: tuple[str, bool]) -> None:
    web = serve(*way)
    pid = json.loads(web.ask("sleep/0")[1])["pid"]
    with frozen(pid):
        status, body, elapsed_s = web.ask("sleep/0")
    assert status == 200, body
    assert json.loads(body)["pid"] != pid
    assert elapsed_s < TIMEOUT_S + 1, "the session hangs for four seconds"
