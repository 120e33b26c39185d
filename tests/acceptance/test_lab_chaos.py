"""A short `scripts/bench chaos`: no acknowledged data is lost or loaded twice, and the run leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from config.env import CHECKOUT
from sandbox.processes import marked_processes

MARK = "CHAOS_TEST"
DEADLINE_S = 600
"""on the busiest machine; a quiet one takes half a minute"""


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Run it with temporary files of its own; its environment tells its processes from others."""
    return subprocess.Popen(
        [sys.executable, "-m", "lab", "chaos", "--seed", "1", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "TMPDIR": str(folder), MARK: str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def assert_nothing_is_left(folder: Path) -> None:
    assert list(folder.iterdir()) == []
    assert marked_processes(f"{MARK}={folder}") == []


@pytest.mark.parametrize("spool", ["folder", "store"])
def test_nothing_acknowledged_is_lost_or_doubled_whatever_fails(tmp_path: Path, spool: str) -> None:
    folder, written = tmp_path / "tmp", tmp_path / "chaos.json"
    folder.mkdir()
    bench = start(folder, "--spool", spool, "--seconds", "8", "--json", str(written))
    printed, _ = bench.communicate(timeout=DEADLINE_S)
    assert bench.returncode == 0, printed
    assert "seed 1; to repeat: scripts/bench chaos" in printed
    assert "verdict: no acknowledged data was lost or loaded twice" in printed
    (phase,) = json.loads(written.read_text())["phases"].values()
    assert phase["problems"] == []
    assert_rows_add_up(phase)
    assert_nothing_is_left(folder)


def assert_rows_add_up(phase: dict[str, Any]) -> None:
    rows = phase["rows"]
    assert rows["sent"] == rows["loaded"] + rows["rejected"] + rows["waiting"] > 0
    assert (rows["waiting"], rows["lost"], phase["left"]) == (0, 0, [])
    assert phase["uploads"]["acknowledged"] > 0
    assert phase["history"]["faults"]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_leaves_nothing_behind(tmp_path: Path, end: signal.Signals) -> None:
    bench = start(tmp_path, "--spool", "folder", "--seconds", "600")
    assert bench.stdout is not None
    assert any(" of 600 s" in line for line in bench.stdout), "it must have begun"
    bench.send_signal(end)
    bench.communicate(timeout=DEADLINE_S)
    assert bench.returncode == 128 + end
    assert_nothing_is_left(tmp_path)
