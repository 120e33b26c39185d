"""Looking again and again: in place on a terminal, block after block elsewhere."""

import signal
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from rich.console import Console, Group, RenderableType
from rich.live import Live

Draw = Callable[[], RenderableType]


def watch(draw: Draw, console: Console, interval_s: float) -> None:
    """Draw what a look gives, every interval, until Ctrl-C; then the terminal is as it was.

    Args:
        draw: looks, and gives what is to be seen.
        console: where; what is not a terminal gets every look as a block.
        interval_s: from the beginning of one look to that of the next.
    """
    if console.is_dumb_terminal or not console.is_terminal:
        repeat(lambda: _print_block(draw(), console), interval_s)
        return
    # On the alternate screen: what was on the terminal comes back, and a window of another size is drawn afresh.
    with Live(console=console, screen=True, auto_refresh=False) as live:
        repeat(lambda: live.update(draw(), refresh=True), interval_s)


def repeat(look: Callable[[], object], interval_s: float) -> None:
    """Look every interval, until Ctrl-C or SIGTERM: one that killed it would leave the terminal without a cursor.

    The signals are noted instead of raised: an exception in the midst of a look can be swallowed where no code of ours
    sees it, as in a destructor. A look is bounded in time, so it ends soon all the same. They are noted in a queue
    whose `put` is reentrant: a `threading.Event` can deadlock when its own waiting thread sets it in a signal handler.
    """
    received: SimpleQueue[int] = SimpleQueue()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(one, lambda number, _: received.put(number)) for one in signals]
    try:
        while True:
            next_at = time.monotonic() + interval_s
            look()
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
