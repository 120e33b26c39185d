"""A web server that runs for an experiment, as its model of concurrency and the environment have it."""

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
from sandbox.processes import family_memory_bytes, family_processor_s

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
ASKERS = 16
TOOLS = Path(sys.executable).parent


@dataclass(frozen=True)
class Model:
    """How a web server does several things at once."""

    label: str
    processes: int
    threads: int
    """requests that a process serves at once, as far as the server bounds them; 0: it does not"""
    command: tuple[str, ...]
    """PORT in it stands for the port"""

    def variables(self) -> dict[str, str]:
        """Give what gunicorn.conf.py reads."""
        return {"WEB_PROCESSES": str(self.processes), "WEB_THREADS": str(max(self.threads, 1))}


def gunicorn(*options: str, application: str = "lab.wsgi:application") -> tuple[str, ...]:
    """Give gunicorn's command line."""
    return (str(TOOLS / "gunicorn"), application, "--log-level", "warning", *options)


MODELS = {
    "sync": Model("gunicorn sync, 8 processes", 8, 1, gunicorn("--worker-class", "sync")),
    "gthread": Model("gunicorn gthread, 2 × 16 threads", 2, 16, gunicorn()),
    "gevent": Model("gunicorn gevent, 2 processes", 2, 0, gunicorn("--worker-class", "gevent")),
    "asgi": Model(
        "uvicorn, 2 processes",
        2,
        0,
        (str(TOOLS / "uvicorn"), "lab.asgi:application", "--workers", "2", "--port", "PORT", "--log-level", "warning"),
    ),
}


@dataclass(frozen=True)
class Web:
    """A web that runs."""

    port: int
    pid: int

    def url(self, path: str = "") -> str:
        """Give the address of a page."""
        return f"http://127.0.0.1:{self.port}/{path}"

    def processor_s(self) -> float:
        """Give the processor time that its processes have had, in seconds."""
        return family_processor_s(self.pid)

    def memory_bytes(self) -> int:
        """Give what its processes have resident."""
        return family_memory_bytes(self.pid)


@contextmanager
def running(model: Model, variables: Mapping[str, str], log: Path) -> Iterator[Web]:
    """Run a web for the length of a block.

    Args:
        model: which server.
        variables: of its environment, above this process's own.
        log: the file that it writes to.

    Raises:
        RuntimeError: it did not start; the text has the end of its log.
    """
    (port,) = free_ports(1)
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
        process = subprocess.Popen(
            command, cwd=CHECKOUT / "backend", env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_until_all_answer(port, model.processes, process, log)
        yield Web(port, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # a request that hangs is the experiment's, not the web's, to wait for
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_all_answer(port: int, processes: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until each of its processes has answered: what still starts slows down what is there."""
    deadline, seen = time.monotonic() + START_TIMEOUT_S, set[str]()
    with ThreadPoolExecutor(ASKERS) as askers:
        while len(seen) < processes:
            try:
                seen |= set(askers.map(_process_that_answers, [port] * ASKERS))
            except OSError as error:  # refused, reset, or silent for too long
                if process.poll() is not None or time.monotonic() > deadline:
                    tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
                    raise RuntimeError(f"the web did not start ({error}); the end of {log}:\n{tail}") from error
                time.sleep(0.1)
            if time.monotonic() > deadline:
                raise RuntimeError(f"of {processes} processes of the web, {len(seen)} answered in {START_TIMEOUT_S} s")


def _process_that_answers(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
        return str(answer.headers["X-Process"])
