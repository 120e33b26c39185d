"""What a bench leaves behind when it is ended early, and what it says meanwhile where there is no terminal."""

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from config.env import CHECKOUT
from lab import progress
from lab.progress import Progress
from sandbox import debian
from sandbox.processes import family_of, marked_processes
from tests.conftest import DEADLINE_S, await_that

MARK = "BENCH_TEST"
START_S, END_S = 300, 120
JOURNAL = "turns.jsonl"
"""in the test's own folder, since another comparison may be under way"""

# A bench, and a word of the command line of what it starts last: then it is ended.
BENCHES = {
    "engine": (("engine",), "gunicorn"),
    "strategies": (("strategies", "--quick", "--journal", JOURNAL), "gunicorn"),
    "ingest": (("ingest", "--rows", "1000000", "--rounds", "50"), "celery"),
    "history": (("history", "--stations", "2"), "celery"),
    "connect": (("connect",), "lab.connect_client"),
    "watching": (("watching",), "manage.py"),
}


def heed_hangups() -> None:
    """Let the end of the terminal be heeded; nohup has it ignored, and that is inherited."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def commands_of(pids: list[int]) -> list[str]:
    found = []
    for pid in pids:
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def starts_in(pid: int, word: str) -> bool:
    return any(word in command for command in commands_of(family_of(pid)))


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("engine", signal.SIGTERM),
        ("strategies", signal.SIGINT),
        ("ingest", signal.SIGINT),
        ("history", signal.SIGTERM),
        ("connect", signal.SIGINT),
        ("watching", signal.SIGHUP),
    ],
)
def test_a_bench_that_is_ended_takes_along_what_it_started(tmp_path: Path, name: str, end: signal.Signals) -> None:
    debian.ensure_tools()
    debian.make(debian.cached_load_generator())
    arguments, starts = BENCHES[name]
    printed = tmp_path / "printed"
    folder = tmp_path / "tmp"
    folder.mkdir()
    with printed.open("w") as output:
        bench = subprocess.Popen(
            [sys.executable, "-m", "lab", *(str(tmp_path / JOURNAL) if one == JOURNAL else one for one in arguments)],
            cwd=CHECKOUT,
            env={**os.environ, "TMPDIR": str(folder), MARK: str(folder)},
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=heed_hangups,  # noqa: PLW1509 - no thread of the tests' runs here
        )
    try:
        await_that(lambda: bench.poll() is not None or starts_in(bench.pid, starts), starts, START_S)
        assert bench.poll() is None, printed.read_text()
        assert " s: " in printed.read_text(), "it says what it does, where there is no terminal"
        family = {pid: commands_of([pid]) for pid in family_of(bench.pid)}
        os.killpg(bench.pid, end)  # as a terminal does: all that are in its group
        assert bench.wait(timeout=END_S) == 128 + end
    finally:
        bench.kill()
        bench.wait()
    # A number may be another process's by now.
    left = [pid for pid, command in family.items() if command and commands_of([pid]) == command]
    assert commands_of(left) == []
    assert commands_of(marked_processes(f"{MARK}={folder}")) == []
    assert list(folder.iterdir()) == []
    assert "Traceback" not in printed.read_text()


class Heard(io.StringIO):
    """Notes when so many lines have been written."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self._lines, self.all = lines, threading.Event()

    def flush(self) -> None:
        """Count; a console flushes after each line."""
        if self.getvalue().count("\n") >= self._lines:
            self.all.set()


def test_a_step_that_takes_long_is_told_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.01)
    heard = Heard(lines=3)
    with Progress(Console(file=heard, width=80), "bench: ") as note:
        note("preparing")
        assert heard.all.wait(DEADLINE_S)
    lines = heard.getvalue().splitlines()
    assert all(line.endswith(" s: bench: preparing") for line in lines)
