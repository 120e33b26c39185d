"""The services beside the servers: web, worker and beat, from the Procfile."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import honcho.manager
from honcho.environ import parse_procfile

from config.env import CHECKOUT, Queue, Web, read
from poolhouse.reports.report import ProcessReport
from poolhouse.reports.store import ReportStore
from sandbox.errors import SandboxError
from sandbox.processes import is_listening, marked_processes, stop_process
from sandbox.servers import Server
from sandbox.services import sandbox_dir

# Every process of a stack carries this variable with the stack's folder: one that lost its manager is still found.
MARK = "POOLHOUSE_STACK"
START_TIMEOUT_S = 180  # on a machine that is busy; a process that ends is noticed at once
STOP_TIMEOUT_S = 20


@dataclass(frozen=True)
class Stack:
    """Web, worker and beat, on servers that run."""

    folder: Path
    """for logs and beat's schedule"""
    web_port: int
    broker_url: str
    variables: Mapping[str, str] = field(default_factory=dict)
    """set in its processes, over those of this one"""

    @property
    def log(self) -> Path:
        """What it prints in the background."""
        return self.folder / "log" / "stack.log"

    @property
    def address(self) -> str:
        """Where the web answers."""
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its processes."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # Unbuffered: a line reaches the log when it is written, not when a buffer is full.
        return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", MARK: str(self.folder), **self.variables}

    def manage(self, *arguments: str) -> None:
        """Run a management command to its end, its output on ours.

        Raises:
            SandboxError: it failed.

        """
        self._manage(arguments, output=None)

    def output_of(self, *arguments: str) -> str:
        """Run a management command to its end, and return what it prints.

        Raises:
            SandboxError: it failed.

        """
        return self._manage(arguments, output=subprocess.PIPE)

    def _manage(self, arguments: Sequence[str], output: int | None) -> str:
        command = [sys.executable, str(CHECKOUT / "backend" / "manage.py"), *arguments]
        answer = subprocess.run(command, env=self.environment, stdout=output, text=True)
        if answer.returncode != 0:
            raise SandboxError(f"manage.py {' '.join(arguments)} exited with status {answer.returncode}")
        return answer.stdout or ""

    def run(self, servers: list[Server]) -> int:
        """Run in the foreground until a process ends or a signal comes; give the exit status.

        One stream of coloured lines holds what the processes and the servers print.
        """
        honcho.manager.KILL_WAIT = STOP_TIMEOUT_S  # a batch in the midst of its COPY may finish
        manager = honcho.manager.Manager()
        for server in servers:
            manager.add_process(server.name, f"exec tail -n 0 -F '{server.log}'", env=self.environment)
        for name, command in parse_procfile((CHECKOUT / "Procfile").read_text()).processes.items():
            manager.add_process(name, command, env=self.environment, cwd=str(CHECKOUT))
        manager.loop()
        # A stop that was asked for is no failure.
        asked_for = manager.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)
        return 0 if asked_for else manager.returncode or 0

    def require_free_port(self) -> None:
        """Refuse to start beside another stack, before anything is started.

        Raises:
            SandboxError: the web's port is taken.
        """
        if is_listening(self.web_port):
            raise SandboxError(
                f"port {self.web_port} is taken. Is the sandbox up? scripts/down stops it; "
                "or set WEB_PORT in .env to a free one."
            )

    def start(self) -> "subprocess.Popen[bytes]":
        """Start in the background, and wait until the web is ready and each service has reported its pools.

        Raises:
            SandboxError: a process did not start.

        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("w") as log:
            manager = subprocess.Popen(
                [sys.executable, "-m", "sandbox", "processes"],
                cwd=CHECKOUT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_until_ready(manager)
        except BaseException:
            self.stop(manager)
            raise
        return manager

    def stop(self, manager: "subprocess.Popen[bytes]") -> None:
        """Stop what `start` started, and wait for its end."""
        stop_process(manager.pid, signal.SIGTERM, STOP_TIMEOUT_S + 5)
        manager.wait()

    def stop_left_behind(self) -> int:
        """End every process of this stack, whoever started it; give how many there were."""
        left = [pid for pid in marked_processes(f"{MARK}={self.folder}") if pid != os.getpid()]
        for pid in left:
            stop_process(pid, signal.SIGTERM, STOP_TIMEOUT_S + 5)  # a manager gives its children so long
        return len(left)

    def reports(self) -> list[ProcessReport]:
        """What its processes report of their pools now."""
        store = ReportStore(self.broker_url, prefix="poolhouse", ttl_s=5, timeout_s=2)
        try:
            return store.read_all().live
        finally:
            store.close()

    def await_fresh_reports(self) -> None:
        """Wait until every process has reported what is true now or later."""
        now, deadline = time.time(), time.monotonic() + START_TIMEOUT_S
        while any(report.reported_at < now for report in self.reports()):
            if time.monotonic() > deadline:
                raise SandboxError(f"the processes report no more; see {self.log}")
            time.sleep(0.05)

    def _wait_until_ready(self, manager: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (self._web_is_ready() and {"web", "worker", "beat"} <= {r.service for r in self.reports()}):
            if manager.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
                raise SandboxError(f"web, worker and beat did not start; the end of {self.log}:\n{tail}")
            time.sleep(0.1)

    def _web_is_ready(self) -> bool:
        try:
            with urlopen(f"{self.address}/readyz", timeout=2):
                return True
        except OSError:  # refused, or answered with an error's status
            return False


def stack_of_environment() -> Stack:
    """The stack as the environment and .env have it."""
    return Stack(sandbox_dir(), read(Web).web_port, read(Queue).url)
