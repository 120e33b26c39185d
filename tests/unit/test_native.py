"""Objects made on a real thread under gevent work on every other thread."""

import subprocess
import sys

from config.env import CHECKOUT

# The thread that has opened a connection ends before the connection does, and its hub with it.
SCRIPT = """
import gevent.monkey
gevent.monkey.patch_all()
import os, socket
from poolhouse.engines import native, sockets
ours, theirs = socket.socketpair()
word = native.call(lambda: sockets.arrival_probe(ours))
native._threads(os.getpid(), native._hub()).kill()
assert word() == 0
theirs.send(b"a word")
assert word() == 1
"""


def test_a_socket_can_be_polled_after_its_thread_has_ended() -> None:
    answer = subprocess.run([sys.executable, "-c", SCRIPT], cwd=CHECKOUT / "backend", capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
