"""Waiting for what another process or thread is about to do."""

import time
from collections.abc import Callable

DEADLINE_S = 60


def wait_for(condition: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
    """Wait until a condition holds; the deadline is for what never happens, not for a machine that is busy."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {timeout_s:g} s"
        time.sleep(0.05)
