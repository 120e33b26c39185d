"""Where commands print for people."""

import io
from collections.abc import Iterator
from typing import TextIO, cast

from django.core.management.base import OutputWrapper
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

WIDTH_WITHOUT_TERMINAL = 200


def console_for(out: OutputWrapper | TextIO, *, no_color: bool = False) -> Console:
    """Make a console on a command's output: colour on a terminal alone, and lines whole where there is none.

    Rich itself honours NO_COLOR.
    """
    file = cast(TextIO, _Verbatim(out)) if isinstance(out, OutputWrapper) else out
    width = None if file.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(file=file, highlight=False, markup=False, no_color=no_color or None, width=width)


def table(*columns: str) -> Table:
    """Make a plain table; a column whose name ends in # is a number, set to the right and never broken."""
    made = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        name, is_number = Text(column.removesuffix("#")), column.endswith("#")  # not markup: it may come from data
        made.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    return made


def section(title: str, content: Table) -> Iterator[RenderableType]:
    """Give a table with its title above, or nothing where it has no rows."""
    if content.row_count:
        yield Text(f"\n{title}", style="bold")
        yield content


class _Verbatim(io.TextIOBase):
    """Django's wrapper ends every write with a newline, which tears apart what redraws itself in place."""

    def __init__(self, out: OutputWrapper) -> None:
        self._out = out

    def write(self, text: str) -> int:
        self._out.write(text, ending="")
        return len(text)

    def flush(self) -> None:
        self._out.flush()

    def isatty(self) -> bool:
        return self._out.isatty()
