"""Messages where the servers cannot be started."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sandbox import debian
from sandbox.errors import SandboxError


def test_the_message_for_an_ordinary_user_without_sudo_has_the_command_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda tool: "/usr/bin/apt-get" if tool == "apt-get" else None)
    with pytest.raises(SandboxError) as refused:
        debian.ensure_tools()
    assert str(refused.value).splitlines() == [
        "missing tools: mmdebstrap, bubblewrap, uidmap. "
        "Install them: sudo apt-get install -y mmdebstrap bubblewrap uidmap"
    ]


def test_the_message_about_user_namespaces_names_the_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess([], 1, "", "bwrap: No permissions to create new namespace\n")

    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(SandboxError, match=r"No permissions.*docker compose.*DATABASE_URL"):
        debian.ensure_tools()


def test_the_folder_s_name_changes_with_its_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = debian.cached_root().path
    assert before.is_relative_to(tmp_path)
    monkeypatch.setattr(debian, "PACKAGES", (*debian.PACKAGES, "postgresql-17-cron"))
    assert debian.cached_root().path != before
