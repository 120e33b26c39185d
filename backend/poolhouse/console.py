"""Where commands print for people."""

from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 200


def console_for(file: TextIO | Any, *, no_color: bool = False) -> Console:
    """Make a console on a command's output: colour on a terminal alone, and lines whole where there is none.

    Rich itself honours NO_COLOR.
    """
    console = Console(file=file, highlight=False, no_color=no_color or None)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=WIDTH_WITHOUT_TERMINAL)
    return console


def table(*columns: str) -> Table:
    """Make a plain table; a column whose name ends in # is a number, set to the right."""
    made = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        made.add_column(column.rstrip("#"), justify="right" if column.endswith("#") else "left", overflow="fold")
    return made
