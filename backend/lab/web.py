"""A web server for an experiment, started with a model of concurrency and an environment."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from config.env import CHECKOUT
from sandbox.isolation import free_ports
from sandbox.processes import wait_or_kill_group

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10
TOOLS = Path(sys.executable).parent


@dataclass(frozen=True)
class Model:
    """How a web server handles concurrent requests.

    If a process serves several connections, each process has its own port: on a shared port, chance decides which
    process accepts a connection, and the connection stays there, so that one process would get most of the load.
    """

    label: str
    ports: int
    processes: int
    """the number of processes that listen on each port"""
    threads: int
    """the limit of concurrent requests in a process; 0: no limit"""
    command: tuple[str, ...]
    """its argument PORT is replaced by the port"""
    closes_connections: bool = False
    """True if the server closes the connection after each answer"""

    @property
    def processes_in_all(self) -> int:
        """The number of processes on all ports."""
        return self.ports * self.processes

    def variables(self) -> dict[str, str]:
        """Return the environment variables that gunicorn.conf.py reads."""
        return {"WEB_PROCESSES": str(self.processes), "WEB_THREADS": str(max(self.threads, 1))}


def gunicorn(*options: str, application: str = "lab.wsgi:application") -> tuple[str, ...]:
    """Return gunicorn's command line."""
    return (str(TOOLS / "gunicorn"), application, "--log-level", "warning", *options)


MODELS = {
    "sync": Model("gunicorn sync, 8 processes", 1, 8, 1, gunicorn("--worker-class", "sync"), closes_connections=True),
    "gthread": Model("gunicorn gthread, 2 × 16 threads", 2, 1, 16, gunicorn()),
    "gevent": Model("gunicorn gevent, 2 processes", 2, 1, 0, gunicorn("--worker-class", "gevent")),
    "asgi": Model(
        "uvicorn, 2 processes",
        2,
        1,
        0,
        (str(TOOLS / "uvicorn"), "lab.asgi:application", "--port", "PORT", "--log-level", "warning"),
    ),
    "gthread-1x32": Model("gunicorn gthread, 1 × 32 threads", 1, 1, 32, gunicorn()),
    "gthread-4x8": Model("gunicorn gthread, 4 × 8 threads", 4, 1, 8, gunicorn()),
    "crowd": Model(
        "gunicorn sync, 48 processes", 1, 48, 1, gunicorn("--worker-class", "sync"), closes_connections=True
    ),
}


@dataclass(frozen=True)
class Web:
    """A running web server."""

    ports: tuple[int, ...]
    pids: tuple[int, ...]
    """of the process that was started for each port; it may have children"""

    def urls(self, path: str) -> list[str]:
        """Return the addresses of a page, one for each port."""
        return [f"http://127.0.0.1:{port}/{path}" for port in self.ports]


@contextmanager
def running(model: Model, variables: Mapping[str, str], log: Path) -> Iterator[Web]:
    """Run a web server for the length of a block.

    Args:
        model: the kind of server.
        variables: environment variables, added to those of this process.
        log: the file for its output.

    Raises:
        RuntimeError: it did not start; the text contains the end of its log.
    """
    ports = tuple(free_ports(model.ports))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for port in ports:
            processes.append(_serve(model, port, variables, log))
        for port, process in zip(ports, processes, strict=True):
            _wait_until_all_answer(port, model.processes, process, log)
        yield Web(ports, tuple(process.pid for process in processes))
    finally:
        for process in processes:
            process.send_signal(signal.SIGINT)  # gunicorn and uvicorn stop at once, not within a second
        for process in processes:
            wait_or_kill_group(process, STOP_TIMEOUT_S)  # without waiting for requests that hang


def _serve(model: Model, port: int, variables: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    environment = {
        **os.environ,  # noqa: TID251 - handed on
        "CELERY_WORKER_RUNNING": "",
        "SERVICE_NAME": "",
        "LOG_LEVEL": "ERROR",
        **model.variables(),
        "WEB_PORT": str(port),
        **variables,
    }
    command = [str(port) if word == "PORT" else word for word in model.command]
    with log.open("a") as output:
        return subprocess.Popen(
            command, cwd=CHECKOUT / "backend", env=environment, stdout=output, stderr=output, start_new_session=True
        )


def _wait_until_all_answer(port: int, processes: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until every process has answered: a process that still starts would slow down the others."""
    deadline, seen = time.monotonic() + START_TIMEOUT_S, set[str]()
    with ThreadPoolExecutor(2 * processes) as askers:
        while len(seen) < processes:
            try:
                seen |= set(askers.map(_process_that_answers, [port] * 2 * processes))
            except OSError as error:  # refused, reset or timed out
                if process.poll() is not None or time.monotonic() > deadline:
                    tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
                    raise RuntimeError(f"the web server did not start ({error}); the end of {log}:\n{tail}") from error
                time.sleep(0.1)
            if time.monotonic() > deadline:
                missing = processes - len(seen)
                raise RuntimeError(
                    f"{missing} of {processes} processes on port {port} did not answer within {START_TIMEOUT_S} s: "
                    f"see {log}"
                )


def _process_that_answers(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
        return str(answer.headers["X-Process"])
