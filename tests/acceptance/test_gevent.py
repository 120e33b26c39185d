"""The pooled engine in a gevent worker of gunicorn's, where threads are greenlets and whoever blocks stops them all."""

import json
import os
import signal
import socket
import subprocess
import sys
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
from tests.acceptance import interruptions
from tests.conftest import DEADLINE_S, await_that, frozen

POOL = {"POOL_SIZE": 4, "MAX_OVERFLOW": 0, "PING_IDLE_S": 0}
COOPERATIVE = [("psycopg2", True), ("psycopg", False)]
EVERY_WAY = [*COOPERATIVE, ("psycopg2", False)]

Serve = Callable[..., "Web"]


class Web:
    """A worker that runs."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, page: str) -> tuple[int, str]:
        """Return the answer's status and body."""
        try:
            with urlopen(f"http://127.0.0.1:{self._port}/{page}", timeout=2 * DEADLINE_S) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

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
        yield lambda *way, **options: stack.enter_context(_served(tmp_path / "log", *way, **options))


@contextmanager
def _served(
    log: Path, driver: str, is_cooperative: bool, *, timeout_s: float = DEADLINE_S, **database: Any
) -> Iterator[Web]:
    (port,) = free_ports(1)
    pool = POOL | {"TIMEOUT": timeout_s}
    application = f"tests.acceptance.greenlets:make({driver!r}, {is_cooperative}, {_settings() | database}, {pool})"
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
            await_that(web.is_up)
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


@pytest.mark.parametrize("way", COOPERATIVE)
def test_requests_share_few_connections_and_wait_at_the_same_time(serve: Serve, way: tuple[str, bool]) -> None:
    web = serve(*way)
    assert json.loads(web.ask("alive")[1])["patched"]
    with ThreadPoolExecutor(20) as askers:
        answers = list(askers.map(web.ask, ["sleep/200"] * 20))
    assert {status for status, _ in answers} == {200}
    waits = [json.loads(body) for _, body in answers]
    assert len({one["pid"] for one in waits}) <= 4
    assert max(sum(one["from"] <= other["from"] < one["to"] for one in waits) for other in waits) in (2, 3, 4)


@pytest.mark.parametrize("way", EVERY_WAY)
def test_a_server_that_never_answers_stops_its_callers_in_time_and_nobody_else(
    serve: Serve, way: tuple[str, bool]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts for it
        web = serve(*way, timeout_s=3, PORT=silent.getsockname()[1])
        with ThreadPoolExecutor(6) as askers:
            asking = [askers.submit(web.ask, "sleep/0") for _ in range(6)]
            others = []
            with silent.accept()[0]:  # one of them is trying to connect
                while not any(one.done() for one in asking):
                    others.append(web.ask("alive")[0])
                answers = [one.result() for one in asking]
    for status, body in answers:
        assert status == 503, body
        assert "no connection within" in body
    assert others[:3] == [200] * 3, "requests that need no database went on"


@pytest.mark.parametrize("way", EVERY_WAY)
def test_a_ping_of_a_session_that_hangs_is_over_in_time(serve: Serve, way: tuple[str, bool]) -> None:
    web = serve(*way)
    pid = json.loads(web.ask("sleep/0")[1])["pid"]
    with frozen(pid):
        status, body = web.ask("sleep/0")
    assert status == 200, body
    assert json.loads(body)["pid"] != pid


@pytest.mark.parametrize("way", EVERY_WAY)
def test_a_checkout_that_a_timeout_of_gevent_breaks_off_keeps_no_permit(serve: Serve, way: tuple[str, bool]) -> None:
    web = serve(*way, OPTIONS={"application_name": "interrupted"})
    status, body = web.ask("interrupt/30")
    assert status == 200, body
    answer = json.loads(body)
    assert answer["is_within_bounds"], answer
    assert answer["figures"] == interruptions.sound(POOL["POOL_SIZE"]), answer
