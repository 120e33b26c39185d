"""Repeating ends at a signal, at any moment."""

import subprocess
import sys

from tests.conftest import DEADLINE_S

ROUNDS = 1500  # with a lock that is not reentrant, about one in several hundred never ends

SIGNALLED = f"""
import os, signal, threading, time
from poolhouse.display.live import repeat

def signal_until(over):
    while not over.wait(0.001):
        os.kill(os.getpid(), signal.SIGTERM)

def before(*_):
    pass

signal.signal(signal.SIGTERM, before)  # a signal may come before or after a round
for _ in range({ROUNDS}):
    over = threading.Event()
    sender = threading.Thread(target=signal_until, args=[over])
    sender.start()
    repeat(lambda: None, 0)
    over.set()
    sender.join()
print("over", signal.getsignal(signal.SIGTERM) is before)
"""


def test_repeating_ends_at_a_signal_at_any_moment() -> None:
    looking = subprocess.run(
        [sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=DEADLINE_S, cwd="backend"
    )
    assert (looking.stdout, looking.stderr) == ("over True\n", "")
