"""Where commands print for people."""

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
    """Make a console on a command's output: colour on a terminal alone, and lines whole where there is none.

    Rich itself honours NO_COLOR. It is not asked what a terminal is: it takes a pipe with FORCE_COLOR for one, and what
    has no TERM.
    """
    is_terminal = out.isatty() and bool(os.environ.get("TERM"))  # noqa: TID251 - the terminal's word, and no setting
    return Console(
        file=cast(TextIO, _Lenient(out)),
        force_terminal=is_terminal,
        highlight=False,
        markup=False,
        emoji=False,  # :cd: is a part of an address
        no_color=no_color or None,
        width=None if out.isatty() else WIDTH_WITHOUT_TERMINAL,
    )


def section(title: str, content: Table) -> Iterator[RenderableType]:
    """Give a table with its title above, or nothing where it has no rows."""
    if content.row_count:
        yield Text(f"\n{title}", style="bold")
        yield content


class _Lenient(io.TextIOBase):
    """An output as it is meant here.

    Django's wrapper ends every write with a newline, which tears apart what redraws itself in place. And what the
    output's encoding does not have becomes a question mark, as a dash or a curve in ASCII.
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
