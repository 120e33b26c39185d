"""The heartbeat files of worker and beat, and the probes that check them."""

import os
import shlex
import subprocess
import threading
import time
from pathlib import Path

import pytest
import yaml
from celery.signals import beat_init, worker_init

from config.env import CHECKOUT
from tests.conftest import await_that
from tests.manifests import container_of, find
from worker.heartbeat import start_heartbeats

ASK_ELSEWHERE = ("inspect", "ping", "redis", "urlopen", "pg_isready", "config.")
SERVICES = yaml.safe_load((CHECKOUT / "docker-compose.dev.yml").read_text())["services"]


def probes() -> dict[str, tuple[str, str]]:
    """The shell commands of the probes of worker and beat, each with its file."""
    found = {}
    for name in ("worker", "beat"):
        container = container_of(find("Deployment", f"poolhouse-{name}"), name)
        told = {one["name"]: one.get("value", "") for one in container["env"]}
        found[f"kubernetes {name}"] = (container["livenessProbe"]["exec"]["command"][-1], told["HEARTBEAT_FILE"])
        service = SERVICES[name]
        command = service["healthcheck"]["test"][-1].replace("$$", "$")
        found[f"compose {name}"] = (command, service["environment"]["HEARTBEAT_FILE"])
    return found


PROBES = probes()


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_depends_only_on_the_file(name: str, tmp_path: Path) -> None:
    command, file = PROBES[name]
    assert not any(word in command for word in ASK_ELSEWHERE), (
        "a server that is away must not restart what depends on it"
    )
    heartbeat = tmp_path / "heartbeat"
    assert file in command
    asked = ["sh", "-c", command.replace(file, shlex.quote(str(heartbeat)))]
    assert subprocess.run(asked, capture_output=True).returncode != 0, "there is no file"
    heartbeat.touch()
    assert subprocess.run(asked).returncode == 0
    old = time.time() - 600
    os.utime(heartbeat, (old, old))
    assert subprocess.run(asked).returncode != 0, "its process has stopped"


@pytest.mark.parametrize("signal", [worker_init, beat_init])
def test_worker_and_beat_touch_the_file_without_a_broker(
    signal: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.heartbeat.INTERVAL_S", 0.01)
    heartbeat, ends = tmp_path / "heartbeat", threading.Event()
    main = threading.Thread(target=ends.wait)
    main.start()
    monkeypatch.setattr(threading, "main_thread", lambda: main)
    monkeypatch.setattr(signal, "receivers", [])
    try:
        start_heartbeats(heartbeat)
        signal.send(sender=None)  # type: ignore[attr-defined]
        first = await_that(lambda: heartbeat.exists() and heartbeat.stat().st_mtime_ns, "a heartbeat")
        await_that(lambda: heartbeat.stat().st_mtime_ns > first, "another")
    finally:
        ends.set()
        main.join()
        await_that(lambda: not [one for one in threading.enumerate() if one.name == "heartbeat"], "its end")
