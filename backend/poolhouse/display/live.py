"""Repeated output: in place on a terminal, block after block elsewhere."""

import signal
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from rich.console import Console, Group, RenderableType
from rich.live import Live

Draw = Callable[[], RenderableType]


def watch(draw: Draw, console: Console, interval_s: float) -> None:
    """Draw at each interval until Ctrl-C, and then restore the terminal.

    Args:
        draw: returns what is to be shown.
        console: where to draw; if it is not a terminal, each update is a block of its own.
        interval_s: from the start of one update to that of the next.
    """
    if console.is_dumb_terminal or not console.is_terminal:
        repeat(lambda: _print_block(draw(), console), interval_s)
        return
    # The alternate screen keeps what was on the terminal, and a resized window is redrawn.
    with Live(console=console, screen=True, auto_refresh=False) as live:
        repeat(lambda: live.update(draw(), refresh=True), interval_s)


def repeat(update: Callable[[], object], interval_s: float) -> None:
    """Run at each interval, until Ctrl-C or SIGTERM, which would otherwise leave the terminal without a cursor.

    Signals are noted instead of raised: an exception in the middle of an update can be swallowed by code of others,
    such as a destructor. An update is bounded in time, so the loop ends soon. They are noted in a queue whose `put` is
    reentrant: a `threading.Event` can deadlock when its own waiting thread sets it in a signal handler.
    """
    received: SimpleQueue[int] = SimpleQueue()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(one, lambda number, _: received.put(number)) for one in signals]
    try:
        while True:
            next_at = time.monotonic() + interval_s
            update()
            try:
                received.get(timeout=max(0.0, next_at - time.monotonic()))
            except Empty:
                continue
            return
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)


def _print_block(block: RenderableType, console: Console) -> None:
    console.print(Group(block, ""))
    console.file.flush()
