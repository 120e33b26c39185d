"""Progress output: a line for each step, with its duration."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

WIDTH = 58


@contextmanager
def step(label: str) -> Iterator[None]:
    """Print the label, run the block, and print its duration, or "failed" if it raises."""
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
    """Print a line immediately, so that it appears before the output of a child process."""
    print(text, flush=True)
