"""scripts/demo, up and down on existing servers in DATABASE_URL and CELERY_BROKER_URL."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from config.env import CHECKOUT, Database, read
from sandbox.processes import is_listening
from sandbox.stack import Stack
from tests.conftest import DEADLINE_S

AGAIN = "were there already"


@pytest.fixture(scope="module")
def elsewhere(make_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with two existing servers, in which no root folder may be made."""
    stack, database = make_stack(), read(Database)
    password = database.db_pass.get_secret_value()
    server = f"127.0.0.1:{database.db_port}/{stack.variables['DB_NAME']}"
    return {
        **stack.environment,
        "DATABASE_URL": f"postgresql://{database.db_user}:{password}@{server}",
        "DB_PORT": "1",
        "REDIS_PORT": "1",
        "POSTGRES_PASSWORD": "",
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),
    }


def sandbox(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "sandbox", *arguments]
    return subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=5 * DEADLINE_S
    )


def test_the_demo_ingests_the_example_and_with_keep_runs_until_scripts_down(elsewhere: dict[str, str]) -> None:
    kept = sandbox(elsewhere, "demo", "--keep")
    try:
        assert kept.returncode == 0, kept.stderr
        assert "211,061 readings inserted" in kept.stdout
        assert AGAIN not in kept.stdout
        assert "queuepool" in kept.stdout, "the status was taken while the web was alive"
        assert "2013-07-01  80.7  78.7  80.8" in kept.stdout
        assert list(Path(elsewhere["XDG_CACHE_HOME"]).iterdir()) == [], "servers that run need nothing installed"
        assert f"web         http://127.0.0.1:{elsewhere['WEB_PORT']}" in kept.stdout
        second = sandbox(elsewhere, "up")
        assert second.returncode == 1
        assert (
            f"port {elsewhere['WEB_PORT']} is in use. If the sandbox is running, stop it with scripts/down"
            in second.stderr
        )
        assert is_listening(int(elsewhere["WEB_PORT"])), "the second start must not stop the first"
    finally:
        down = sandbox(elsewhere, "down")
    assert down.returncode == 0
    assert not is_listening(int(elsewhere["WEB_PORT"]))
    assert processes_of(elsewhere) == []


def test_the_demo_stops_what_it_started_and_reports_that_the_readings_were_there_already(
    elsewhere: dict[str, str],
) -> None:
    if AGAIN not in (first := sandbox(elsewhere, "demo").stdout):
        first = sandbox(elsewhere, "demo").stdout
    assert f"0 readings inserted, 211,061 {AGAIN}: the demo loads the same file each time." in first.splitlines()
    assert not is_listening(int(elsewhere["WEB_PORT"]))
    assert processes_of(elsewhere) == []


def test_up_runs_in_the_foreground_and_ctrl_c_stops_every_process(elsewhere: dict[str, str]) -> None:
    command = [sys.executable, "-m", "sandbox", "up"]
    with subprocess.Popen(
        command, cwd=CHECKOUT, env=elsewhere, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as up:
        try:
            assert up.stdout
            seen = read_until(up.stdout, "ready.")  # the worker's last line before it waits for tasks
            os.killpg(up.pid, signal.SIGINT)
            rest = up.stdout.read()
            assert up.wait(timeout=DEADLINE_S) == 0, seen + rest
        finally:
            up.kill()
    for service in ("web", "worker", "beat"):
        assert f"{service} started" in seen
        assert f"{service} stopped (rc=0)" in rest
    assert processes_of(elsewhere) == []


def read_until(stream: IO[str], word: str) -> str:
    """Return the lines up to the first with a word; fail if the stream ends before it."""
    lines = []
    for line in stream:
        lines.append(line)
        if word in line:
            return "".join(lines)
    pytest.fail("it ended early:\n" + "".join(lines))


def test_an_existing_server_that_does_not_answer_is_named(elsewhere: dict[str, str]) -> None:
    answer = sandbox({**elsewhere, "CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}, "services", "start")
    assert answer.returncode == 1
    assert "CELERY_BROKER_URL: no server accepts connections at 127.0.0.1:1" in answer.stderr
    assert sandbox(elsewhere, "services", "status").returncode == 0


def processes_of(environment: dict[str, str]) -> list[Any]:
    mark = f"POOLHOUSE_STACK={environment['SANDBOX_DIR']}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes())
        except OSError:
            continue
    return found
