"""scripts/setup and scripts/env, in a copy of the checkout."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from config.env import CHECKOUT
from tests.conftest import DEADLINE_S


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(CHECKOUT / "scripts", tmp_path / "scripts")
    for name in (".env.example", "requirements.txt", "requirements-uv.txt"):
        shutil.copy(CHECKOUT / name, tmp_path)
    return tmp_path


def run(copy: Path, script: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **variables}
    return subprocess.run([copy / script], env=environment, capture_output=True, text=True, timeout=5 * DEADLINE_S)


def test_a_failed_installation_is_reported_and_repeated(copy: Path) -> None:
    unreachable = {
        "PIP_INDEX_URL": "http://127.0.0.1:1/",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "0",
    }
    for _ in range(2):
        answer = run(copy, "scripts/setup", PIP_CONFIG_FILE=os.devnull, **unreachable)
        assert answer.returncode == 1
        assert "Python environment failed" in answer.stdout
        assert not list((copy / ".venv").glob("installed-*"))


def test_setup_does_not_clear_an_environment_that_it_did_not_make(copy: Path) -> None:
    (copy / ".venv").mkdir()
    (copy / ".venv/mine").touch()
    answer = run(copy, "scripts/setup")
    assert answer.returncode == 1
    assert ".venv exists but was not made by scripts/setup: move it away" in answer.stderr
    assert (copy / ".venv/mine").exists()


def test_env_generates_each_missing_secret_and_keeps_existing_values(copy: Path) -> None:
    assert run(copy, "scripts/env").returncode == 0
    made = (copy / ".env").read_text()
    blank = re.sub(r"(?m)^((?:\w*PASS\w*|SECRET_KEY|METRICS_TOKEN)=)[0-9a-f]{64}$", r"\1", made)
    assert blank == (copy / ".env.example").read_text()
    assert len(set(re.findall(r"[0-9a-f]{64}", made))) == 6
    assert (copy / ".env").stat().st_mode & 0o077 == 0
    run(copy, "scripts/env")
    assert (copy / ".env").read_text() == made
    (copy / ".env").write_text("DB_PASS=mine\nWEB_PORT=9000")  # no newline at the end
    run(copy, "scripts/env")
    kept = (copy / ".env").read_text()
    assert kept.startswith("DB_PASS=mine\nWEB_PORT=9000\n")
    assert kept.count("=") == 7
