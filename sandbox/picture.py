"""The picture in the README: `db_pool_status` in trouble, from a real run, as an SVG.

A shell keeps a lock on the table of tokens. Requests with a token wait for the lock, each with a connection, until the
web's pools have none left.
"""

import argparse
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from config.env import CHECKOUT
from sandbox.errors import SandboxError
from sandbox.processes import end_in_good_order
from sandbox.stack import Stack, stack_of_environment
from sandbox.steps import step
from sandbox.system import start_system
from sandbox.terminal_svg import svg_of

PICTURE = CHECKOUT / "docs" / "db_pool_status.svg"
COLUMNS = 100
CLIENTS = 14
LOCKED_S = 12
SMALL_POOLS = {"DB_MAX_CONNS_DEV": "3", "DB_MAX_OVERFLOW_DEV": "0", "DB_POOL_TIMEOUT_DEV": "3"}
LOCK = """
from django.db import connection, transaction
with transaction.atomic():
    connection.cursor().execute("LOCK TABLE api_apitoken")
    print("locked", flush=True)
    input()
"""


def take(path: Path) -> None:
    """Start the sandbox with small pools, cause the trouble, and write what the status shows as SVG to `path`."""
    plain = stack_of_environment()
    stack = Stack(plain.folder, plain.web_port, plain.broker_url, SMALL_POOLS)
    with ExitStack() as started:
        start_system(stack, started)
        token = started.enter_context(_token(stack))
        started.enter_context(_lock(stack))
        started.enter_context(_clients(stack, token))
        with step(f"{CLIENTS} clients wait for a locked table"):
            time.sleep(LOCKED_S)
        path.write_text(svg_of(_on_a_terminal("db_pool_status", stack), "manage.py db_pool_status", COLUMNS))


@contextmanager
def _token(stack: Stack) -> Iterator[str]:
    """Have a token for HTTP for the length of a block."""
    name = f"picture-{os.getpid()}"
    token = stack.output_of("create_token", name).split()[-1]
    try:
        yield token
    finally:
        stack.output_of("revoke_token", name)


@contextmanager
def _lock(stack: Stack) -> Iterator[None]:
    """Keep the lock, in a process of its own, for the length of a block."""
    command = [sys.executable, str(CHECKOUT / "backend" / "manage.py"), "shell", "--no-imports", "-c", LOCK]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=stack.environment, stdin=pipe, stdout=pipe, text=True) as shell:
        if shell.stdout is None or shell.stdout.readline() != "locked\n":
            raise SandboxError("the table of tokens could not be locked; is another process using it?")
        yield
        shell.communicate("\n")


@contextmanager
def _clients(stack: Stack, token: str) -> Iterator[None]:
    """Ask for the list of jobs again and again, from several threads, for the length of a block."""
    ended = threading.Event()
    request = Request(f"{stack.address}/api/jobs/", headers={"Authorization": f"Bearer {token}"})

    def ask(_: int) -> None:
        while not ended.is_set():
            with suppress(HTTPError), urlopen(request, timeout=60):  # 503: the pool is used up
                pass

    with ThreadPoolExecutor(CLIENTS) as threads:
        asked = threads.map(ask, range(CLIENTS))
        try:
            yield
        finally:
            ended.set()
    list(asked)


def _on_a_terminal(command: str, stack: Stack) -> str:
    """Run a management command on a terminal of its own, and return what it writes, colours included."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environment = {**stack.environment, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, str(CHECKOUT / "backend" / "manage.py"), command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=its,
    ):
        os.close(its)
        written = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    return written.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the last writer has closed it
        return b""


def main() -> None:
    """Read the command line, and take the picture."""
    parser = argparse.ArgumentParser(prog="scripts/picture", description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, default=PICTURE, help="SVG to write (default: %(default)s)")
    take(parser.parse_args().path)


if __name__ == "__main__":
    end_in_good_order()
    try:
        main()
    except SandboxError as error:
        sys.exit(f"\n{error}")
