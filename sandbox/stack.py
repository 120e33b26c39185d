"""Web, worker and beat as processes, from the Procfile."""

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

# Every process of a stack has this variable, set to the stack's folder, so that one without its manager can be found.
MARK = "POOLHOUSE_STACK"
START_TIMEOUT_S = 180  # long enough for a busy machine; a process that exits is noticed immediately
STOP_TIMEOUT_S = 20


@dataclass(frozen=True)
class Stack:
    """Web, worker and beat on running servers."""

    folder: Path
    """for logs and beat's schedule"""
    web_port: int
    broker_url: str
    variables: Mapping[str, str] = field(default_factory=dict)
    """variables of its processes, which override those of this process"""

    @property
    def log(self) -> Path:
        """Return the log file of a stack that runs in the background."""
        return self.folder / "log" / "stack.log"

    @property
    def address(self) -> str:
        """Return the web's URL."""
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of its processes."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # Unbuffered, so that a line reaches the log when it is written.
        return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", MARK: str(self.folder), **self.variables}

    def manage(self, *arguments: str) -> None:
        """Run a management command, which prints to this process's output, and wait for its end.

        Raises:
            SandboxError: its exit status is not 0.

        """
        self._manage(arguments, output=None)

    def output_of(self, *arguments: str) -> str:
        """Run a management command and return its output.

        Raises:
            SandboxError: its exit status is not 0.

        """
        return self._manage(arguments, output=subprocess.PIPE)

    def _manage(self, arguments: Sequence[str], output: int | None) -> str:
        command = [sys.executable, str(CHECKOUT / "backend" / "manage.py"), *arguments]
        answer = subprocess.run(command, env=self.environment, stdout=output, text=True)
        if answer.returncode != 0:
            raise SandboxError(f"manage.py {' '.join(arguments)} exited with status {answer.returncode}")
        return answer.stdout or ""

    def run(self, servers: list[Server]) -> int:
        """Run in the foreground until a process ends or a signal arrives; return the exit status.

        The output of the processes and of the servers is printed as one stream of coloured lines.
        """
        honcho.manager.KILL_WAIT = STOP_TIMEOUT_S  # long enough to finish the COPY of a batch
        manager = honcho.manager.Manager()
        for server in servers:
            manager.add_process(server.name, f"exec tail -n 0 -F '{server.log}'", env=self.environment)
        for name, command in parse_procfile((CHECKOUT / "Procfile").read_text()).processes.items():
            manager.add_process(name, command, env=self.environment, cwd=str(CHECKOUT))
        manager.loop()
        was_stopped = manager.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)
        return 0 if was_stopped else manager.returncode or 0

    def require_free_port(self) -> None:
        """Check the web's port before anything is started.

        Raises:
            SandboxError: the port is in use.
        """
        if is_listening(self.web_port):
            raise SandboxError(
                f"web: port {self.web_port} is in use. If the sandbox is running, stop it with scripts/down; "
                "otherwise set WEB_PORT in .env to a free port."
            )

    def start(self) -> "subprocess.Popen[bytes]":
        """Start in the background; return the manager when the web is ready and each service has reported its pools.

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
        """Stop what `start` has started, and wait for its end."""
        stop_process(manager.pid, signal.SIGTERM, STOP_TIMEOUT_S + 5)
        manager.wait()

    def stop_left_behind(self) -> int:
        """Stop every process of this stack, even if another process started it; return how many there were."""
        left = [pid for pid in marked_processes(f"{MARK}={self.folder}") if pid != os.getpid()]
        for pid in left:
            stop_process(pid, signal.SIGTERM, STOP_TIMEOUT_S + 5)  # longer than a manager waits for its children
        return len(left)

    def reports(self) -> list[ProcessReport]:
        """Return the current pool reports of its processes."""
        store = ReportStore(self.broker_url, prefix="poolhouse", ttl_s=5, timeout_s=2)
        try:
            return store.read_all().live
        finally:
            store.close()

    def await_fresh_reports(self) -> None:
        """Wait until every process has published a report that is newer than this call.

        Raises:
            SandboxError: the reports are not renewed.
        """
        now, deadline = time.time(), time.monotonic() + START_TIMEOUT_S
        while any(report.reported_at < now for report in self.reports()):
            if time.monotonic() > deadline:
                raise SandboxError(f"no new pool report of a process within {START_TIMEOUT_S} s; see {self.log}")
            time.sleep(0.05)

    def _wait_until_ready(self, manager: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (self._web_is_ready() and {"web", "worker", "beat"} <= {r.service for r in self.reports()}):
            if manager.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
                raise SandboxError(f"web, worker and beat did not start; the last lines of {self.log}:\n{tail}")
            time.sleep(0.1)

    def _web_is_ready(self) -> bool:
        try:
            with urlopen(f"{self.address}/readyz", timeout=2):
                return True
        except OSError:  # refused, or an error status
            return False


def stack_of_environment() -> Stack:
    """Return the stack that the environment configures."""
    return Stack(sandbox_dir(), read(Web).web_port, read(Queue).url)
