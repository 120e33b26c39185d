"""The services beside the servers: web, worker and beat, from the Procfile."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import honcho.manager
from honcho.environ import parse_procfile

from config.env import CHECKOUT, Queue, Web, read
from poolhouse.store import ReportStore
from sandbox.errors import SandboxError
from sandbox.processes import is_listening, stop_process
from sandbox.servers import Server
from sandbox.services import VAR

# Every process of a stack carries this variable, so that one that lost its manager is still found.
MARK = "POOLHOUSE_STACK"
LOG = VAR / "log" / "stack.log"
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20


def environment() -> dict[str, str]:
    """The environment of the stack's processes."""
    # PYTHONUNBUFFERED: a line reaches the log when it is written, not when a buffer is full.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", MARK: str(VAR)}


def manage(*arguments: str) -> None:
    """Run a management command to its end, its output on ours.

    Raises:
        SandboxError: it failed.

    """
    command = [sys.executable, str(CHECKOUT / "backend" / "manage.py"), *arguments]
    if (status := subprocess.run(command, env=environment()).returncode) != 0:
        raise SandboxError(f"manage.py {' '.join(arguments)} exited with status {status}")


def run(servers: list[Server]) -> int:
    """Run web, worker and beat in the foreground until one ends or a signal comes; give the exit status.

    One stream of coloured lines holds what they and the servers print.
    """
    honcho.manager.KILL_WAIT = STOP_TIMEOUT_S  # a batch in the midst of its COPY may finish
    manager = honcho.manager.Manager()
    for server in servers:
        manager.add_process(server.name, f"exec tail -n 0 -F '{server.log}'", env=environment(), cwd=str(CHECKOUT))
    for name, command in parse_procfile((CHECKOUT / "Procfile").read_text()).processes.items():
        manager.add_process(name, command, env=environment(), cwd=str(CHECKOUT))
    manager.loop()
    # A stop that was asked for is no failure.
    asked_for = manager.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    return 0 if asked_for else manager.returncode or 0


def start_background() -> "subprocess.Popen[bytes]":
    """Start web, worker and beat, and wait until the web is ready and each has reported its pools.

    Raises:
        SandboxError: the web's port is taken, or they did not start.

    """
    port = read(Web).web_port
    if is_listening(port):
        raise SandboxError(
            f"port {port} is taken. Is the sandbox up? scripts/down stops it; or set WEB_PORT in .env to a free one."
        )
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sandbox", "processes"],
            cwd=CHECKOUT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}/readyz")
    except BaseException:
        stop_background(process)
        raise
    return process


def stop_background(process: "subprocess.Popen[bytes]") -> None:
    """Stop what `start_background` started, and wait for its end."""
    stop_process(process.pid, signal.SIGTERM, STOP_TIMEOUT_S + 5)
    process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", address: str) -> None:
    reports = ReportStore(read(Queue).url, prefix="poolhouse", ttl_s=5, timeout_s=2)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (_is_ready(address) and {"web", "worker", "beat"} <= {r.service for r in reports.read_all()}):
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(LOG.read_text(errors="replace").splitlines()[-15:])
            raise SandboxError(f"web, worker and beat did not start; the end of {LOG}:\n{tail}")
        time.sleep(0.1)
    reports.close()


def _is_ready(address: str) -> bool:
    try:
        with urlopen(address, timeout=2):
            return True
    except (HTTPError, URLError, OSError):
        return False


def stop_left_behind() -> int:
    """End every process of this checkout's stack, whoever started it; give how many there were."""
    left = [pid for pid in _marked_processes() if pid != os.getpid()]
    for pid in left:
        stop_process(pid, signal.SIGTERM, STOP_TIMEOUT_S)
    return len(left)


def _marked_processes() -> list[int]:
    """This stack's processes, each manager before what it manages, so that they end in good order."""
    mark = f"{MARK}={VAR}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended, or is another user's
    return sorted(found)
