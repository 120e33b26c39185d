"""A line for each step, with its time."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

WIDTH = 58


@contextmanager
def step(label: str) -> Iterator[None]:
    """Say what is being done, then how long it took; what fails is marked, and raised."""
    begun = time.monotonic()
    sys.stdout.write(f"  {label} ".ljust(WIDTH, "·"))
    sys.stdout.flush()
    try:
        yield
    except BaseException:
        print(" failed")
        raise
    print(f" {time.monotonic() - begun:5.1f} s")


def say(text: str) -> None:
    """Print a line of its own between steps, before anything that a child prints."""
    print(text, flush=True)
