"""The sandbox as a whole: its servers, the database schema, and web, worker and beat."""

import subprocess
from contextlib import ExitStack

from sandbox import services
from sandbox.stack import Stack
from sandbox.steps import say, step


def start_servers(stack: Stack, started: ExitStack) -> None:
    """Start the servers and bring the schema up to date; closing `started` stops the servers that were started.

    Raises:
        SandboxError: the web's port is taken, or a server cannot start.
    """
    stack.require_free_port()
    servers = services.start()
    started.callback(services.stop, servers)
    with step("database schema"):
        stack.manage("migrate", "--verbosity", "0")


def start_system(stack: Stack, started: ExitStack) -> None:
    """Start servers, web, worker and beat; closing `started` stops what was started."""
    start_servers(stack, started)
    with step("web, worker and beat"):
        manager = stack.start()
    started.callback(_stop, stack, manager)


def _stop(stack: Stack, manager: "subprocess.Popen[bytes]") -> None:
    say("")
    with step("stop web, worker and beat"):
        stack.stop(manager)
