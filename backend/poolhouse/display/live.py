"""Looking again and again: in place on a terminal, block after block elsewhere."""

import signal
import time
from collections.abc import Callable

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
    """Look every interval, until Ctrl-C or SIGTERM: one that killed it would leave the terminal without a cursor."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            next_at = time.monotonic() + interval_s
            look()
            time.sleep(max(0.0, next_at - time.monotonic()))
    except KeyboardInterrupt:
        pass  # it is how this ends
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_block(block: RenderableType, console: Console) -> None:
    console.print(Group(block, ""))
    console.file.flush()
