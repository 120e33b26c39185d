"""The commands that look, as processes of their own: once, watched on a real terminal, and as health checks."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

import pytest

from config.env import CHECKOUT
from tests import forked
from tests.acceptance.conftest import Running
from tests.conftest import DEADLINE_S

COMMANDS = ("db_pool_status", "monitor_connection_pool")
# How a terminal is told to show its other screen, and its own again, and to hide the cursor, and to show it.
ENTER, LEAVE, HIDE, SHOW = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25l", b"\x1b[?25h"
HOME = b"\x1b[H"
AWAY = {"DB_PORT": "1", "CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}


class Terminal:
    """A pseudo-terminal with a management command on it."""

    def __init__(self, running: Running, *arguments: str, columns: int, rows: int = 40, **variables: str) -> None:
        self.output = b""
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            manage_py = str(CHECKOUT / "backend/manage.py")
            environment = {**running.stack.environment, "TERM": "xterm-256color", "NO_COLOR": "", **variables}
            os.execve(sys.executable, [sys.executable, manage_py, *arguments], environment)
        self.modes = termios.tcgetattr(self._master)

    def read_until(self, pattern: bytes, *, count: int = 1, within_s: float = DEADLINE_S) -> None:
        """Read until a pattern has come so often."""
        deadline = time.monotonic() + within_s
        while len(re.findall(pattern, self.output)) < count:
            assert time.monotonic() < deadline, self.output
            if not self._read(0.1):
                raise AssertionError(f"it ended: {self.output!r}")

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    def wait(self) -> int:
        """Read to the end, and give the exit status."""
        deadline = time.monotonic() + DEADLINE_S
        while self._read(1):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError("it does not end")
        _, status = os.waitpid(self.pid, 0)
        os.close(self._master)
        return os.waitstatus_to_exitcode(status)

    def _read(self, timeout_s: float) -> bool:
        """Read what is there; False at the end."""
        ready, _, _ = select.select([self._master], [], [], timeout_s)
        if not ready:
            return True
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # Linux says EIO when the other end is closed
            return False
        self.output += piece
        return bool(piece)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("end", ["Ctrl-C", "SIGTERM"])
def test_watching_redraws_in_place_and_leaves_the_terminal_as_it_was(running: Running, command: str, end: str) -> None:
    terminal = Terminal(running, command, "--watch", "--interval", "0.2", columns=120)
    terminal.read_until(re.escape(HOME), count=4)
    modes = terminal.modes
    if end == "Ctrl-C":
        terminal.type(b"\x03")
    else:
        os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.wait() == 0
    output = terminal.output
    assert output.count(ENTER) == output.count(LEAVE) == 1
    assert output.index(ENTER) < output.index(HOME)
    assert output.rindex(SHOW) > output.rindex(HIDE), "the cursor is seen again"
    assert output.rindex(LEAVE) > output.rindex(HOME), "nothing is drawn on the terminal's own screen"
    assert output[output.rindex(LEAVE) + len(LEAVE) :].strip() in (b"", SHOW)
    assert b"Traceback" not in output
    assert b"every 0.2 s; Ctrl-C to quit" in output
    assert modes[3] & termios.ECHO, "it has not touched the terminal's modes"


def test_watching_shows_a_curve_for_each_service(running: Running) -> None:
    terminal = Terminal(running, "db_pool_status", "--watch", "--interval", "0.2", columns=120, NO_COLOR="1")
    terminal.read_until(re.escape(HOME), count=5)
    terminal.type(b"\x03")
    terminal.wait()
    frame = terminal.output.split(HOME)[-2].decode()
    trend = frame[frame.index("Trend") : frame.index("Services")]
    (web,) = (line for line in trend.splitlines() if line.startswith("web"))
    assert re.match(r"web +\d+ of 20 +[▁▂▃▄▅▆▇█]{2,} +0 +▁{2,} +\d+\.\d +[▁▂▃▄▅▆▇█]+ *$", web), web
    assert {"beat", "web", "worker", "fleet"} <= {line.split()[0] for line in trend.splitlines() if line.split()}


def test_a_terminal_that_does_not_say_what_it_is_gets_plain_blocks(running: Running) -> None:
    terminal = Terminal(running, "db_pool_status", "--watch", "--interval", "0.2", columns=120, TERM="")
    terminal.read_until(rb"every 0.2 s", count=2)
    terminal.type(b"\x03")
    assert terminal.wait() == 0
    assert b"\x1b" not in terminal.output


@contextmanager
def piped(running: Running, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A management command whose output nobody sees but the test."""
    command = [sys.executable, str(CHECKOUT / "backend/manage.py"), *arguments]
    with subprocess.Popen(command, env=running.stack.environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_without_a_terminal_each_look_is_a_block(running: Running) -> None:
    with piped(running, "db_pool_status", "--watch", "--interval", "0.1") as process:
        assert process.stdout
        heads = 0
        for line in process.stdout:
            assert "\x1b" not in line
            assert "Ctrl-C" not in line
            heads += bool(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, every 0.1 s$", line))
            if heads == 3:
                break
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_watched_as_json_each_look_is_an_object_on_a_line(running: Running, command: str) -> None:
    with piped(running, command, "--watch", "--json", "--interval", "0.1") as process:
        assert process.stdout
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(DEADLINE_S) == 0
    assert second["taken_at"] > first["taken_at"]
    assert first["schema"] == second["schema"]


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_watch_ends_quietly_when_nobody_reads_it_any_more(running: Running, form: tuple[str, ...]) -> None:
    command = [sys.executable, str(CHECKOUT / "backend/manage.py"), "db_pool_status", "--watch", "--interval", "0.1"]
    environment = running.stack.environment
    with subprocess.Popen(
        [*command, *form], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(DEADLINE_S) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_colour_is_for_terminals_that_want_it(running: Running, command: str) -> None:
    coloured = Terminal(running, command, columns=80)
    plain = Terminal(running, command, columns=80, NO_COLOR="1")
    assert (coloured.wait(), plain.wait()) == (0, 0)
    assert re.search(rb"\x1b\[1;3[0-9]m(OK|HEALTHY|WARNING)", coloured.output)
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9]m", plain.output)
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in coloured.output.decode().splitlines()) <= 80


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("away", "fail_on", "status"),
    [
        ({}, "warning", 0),
        ({"CELERY_BROKER_URL": AWAY["CELERY_BROKER_URL"]}, "critical", 0),
        ({"CELERY_BROKER_URL": AWAY["CELERY_BROKER_URL"]}, "warning", 1),
        (AWAY, "warning", 2),
        (AWAY, "critical", 2),
    ],
)
def test_a_health_check_fails_on_what_it_is_to_fail_on(
    running: Running, command: str, away: dict[str, str], fail_on: str, status: int
) -> None:
    answer = manage_with(running, away, command, "--fail-on", fail_on)
    assert answer.returncode == status, answer.stdout
    assert ("process reports are unreachable: Redis: " in answer.stdout) == bool(away)
    assert ("database server (default) is unreachable: " in answer.stdout) == ("DB_PORT" in away)
    assert answer.stderr == ""


def manage_with(running: Running, variables: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return forked.manage(*arguments, env={**running.stack.environment, **variables})


def test_the_monitor_counts_what_the_web_asks(running: Running) -> None:
    def counted() -> int:
        running.stack.await_fresh_reports()
        document = json.loads(running.manage("monitor_connection_pool", "--json").stdout)
        queries: int = document["queries"]["count"]
        return queries

    before = counted()
    for _ in range(10):
        with urlopen(running.stack.address, timeout=DEADLINE_S):
            pass
    assert counted() >= before + 10


@pytest.mark.parametrize("command", COMMANDS)
def test_what_only_looks_loads_no_pool_and_no_queue_and_reports_nothing(running: Running, command: str) -> None:
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('loaded', *({'sqlalchemy', 'celery', 'numpy', 'pyarrow', 'dj_db_conn_pool'} & set(sys.modules)))"
    )
    manage_py = str(CHECKOUT / "backend/manage.py")
    answer = subprocess.run(
        [sys.executable, "-c", code, manage_py, command],
        env=running.stack.environment,
        cwd=CHECKOUT / "backend",
        capture_output=True,
        text=True,
        timeout=5 * DEADLINE_S,
    )
    assert answer.stdout.splitlines()[-1] == "loaded", answer.stdout + answer.stderr
    with piped(running, command, "--watch", "--json", "--interval", "0.5") as process:
        assert process.stdout
        for _ in range(3):  # for longer than a process takes to report
            process.stdout.readline()
        assert not [report for report in running.stack.reports() if report.service == "manage"]


def test_the_document_has_each_service_and_the_fleet(running: Running) -> None:
    document = running.status()
    assert [service["service"] for service in document["services"]] == ["beat", "web", "worker"]
    assert document["fleet"]["processes"] == len(document["processes"])
