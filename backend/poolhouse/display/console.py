"""The console that commands print on."""

import io
import os
from collections.abc import Iterator
from typing import TextIO, cast

from django.core.management.base import OutputWrapper
from rich.console import Console, RenderableType
from rich.text import Text

from poolhouse.display.table import Table

WIDTH_WITHOUT_TERMINAL = 200


def console_for(out: OutputWrapper | TextIO, *, no_color: bool = False) -> Console:
    """Return a console on a command's output: colours on terminals only, and no line breaks elsewhere.

    Rich honours NO_COLOR. It does not detect the terminal here: it takes a pipe with FORCE_COLOR for a terminal, and
    also an output without TERM.
    """
    is_terminal = out.isatty() and bool(os.environ.get("TERM"))  # noqa: TID251 - set by the terminal
    return Console(
        file=cast(TextIO, _Lenient(out)),
        force_terminal=is_terminal,
        highlight=False,
        markup=False,
        emoji=False,  # ":cd:" can be part of an IPv6 address, not an emoji
        no_color=no_color or None,
        width=None if out.isatty() else WIDTH_WITHOUT_TERMINAL,
    )


def section(title: str, content: Table) -> Iterator[RenderableType]:
    """Yield a table with its title above, or nothing if it has no rows."""
    if content.row_count:
        yield Text(f"\n{title}", style="bold")
        yield content


class _Lenient(io.TextIOBase):
    """A command's output, as rich needs it.

    Django's wrapper ends each write with a newline, which breaks a display that redraws itself in place. Characters
    that the output's encoding lacks become question marks, such as dashes and curves in ASCII.
    """

    def __init__(self, out: OutputWrapper | TextIO) -> None:
        self._out = out
        self._codec = getattr(out, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        known = text.encode(self._codec, "replace").decode(self._codec)
        if isinstance(self._out, OutputWrapper):
            self._out.write(known, ending="")
        else:
            self._out.write(known)
        return len(text)

    def flush(self) -> None:
        self._out.flush()

    def isatty(self) -> bool:
        return self._out.isatty()
