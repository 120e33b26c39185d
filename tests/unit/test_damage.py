"""Damaged files are refused or read; none ends the process or raises an unexpected error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.env import CHECKOUT

CHANGES = 120


@pytest.mark.parametrize("seed", [1, 2])
def test_a_damaged_file_is_refused_or_read_and_never_ends_the_process(tmp_path: Path, seed: int) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "tests.unit.damage", str(tmp_path), str(seed), str(CHANGES)],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'backend'}"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert all(word in answer.stdout for word in ("refused", "parked", "rows")), answer.stdout
