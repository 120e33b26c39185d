"""A table that fits the terminal by leaving out columns instead of breaking words."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

GAP_COLUMNS = 2


class Table:
    """Rows under headings; a heading that ends in # is that of numbers, aligned to the right and never wrapped.

    Cells are wrapped between words. If the longest words of all columns do not fit side by side, columns are left out,
    first those of `shed`, then the last ones. The first column always stays, and a line names those that are missing.

    Args:
        headings: the names of the columns.
        shed: columns that are left out first, in this order; a name that several columns have means all of them.
    """

    def __init__(self, *headings: str, shed: Sequence[str] = ()) -> None:
        names = [heading.removesuffix("#") for heading in headings]
        self._is_number = [heading.endswith("#") for heading in headings]
        self._rows: list[list[Text]] = []
        self._headings = [
            Text(name, style="dim") for name in names
        ]  # plain text instead of markup, since it may come from data
        self._order = [n for name in shed for n, heading in enumerate(names) if heading == name]
        self._order += [n for n in range(len(names) - 1, 0, -1) if n not in self._order]
        self.show_header = True

    @property
    def row_count(self) -> int:
        """The number of rows, without the headings."""
        return len(self._rows)

    def add_row(self, *cells: str | Text) -> None:
        """Add a row; columns without a cell stay empty."""
        texts = [cell if isinstance(cell, Text) else Text(cell) for cell in cells]
        self._rows.append(texts + [Text()] * (len(self._headings) - len(texts)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the columns that fit."""
        left_out = self._left_out(options.max_width)
        shown = [n for n in range(len(self._headings)) if n not in left_out]
        drawn = RichTable(box=None, pad_edge=False, show_header=self.show_header, padding=(0, GAP_COLUMNS, 0, 0))
        for n, width in zip(shown, self._widths(shown, options.max_width), strict=True):
            is_number = self._is_number[n]
            drawn.add_column(
                self._headings[n],
                justify="right" if is_number else "left",
                overflow="fold",
                no_wrap=is_number,
                width=width,
            )
        for row in self._rows:
            drawn.add_row(*(row[n] for n in shown))
        yield drawn
        if left_out:
            names = ", ".join(dict.fromkeys(self._headings[n].plain for n in sorted(left_out)))
            yield Text(f"(too narrow for: {names})", style="dim")

    def _left_out(self, width: int) -> set[int]:
        left_out: set[int] = set()
        for n in self._order:
            shown = [n for n in range(len(self._headings)) if n not in left_out]
            if sum(map(self._least, shown)) + _gaps(shown) <= width:
                break
            left_out.add(n)
        return left_out

    def _widths(self, shown: list[int], width: int) -> list[int]:
        """Return each column's width: at least its longest word; what is left goes to the narrowest columns first."""
        widths, wanted = [self._least(n) for n in shown], [self._most(n) for n in shown]
        if sum(wanted) + _gaps(shown) <= width:
            return wanted
        for _ in range(width - _gaps(shown) - sum(widths)):
            narrowest = min(
                (n for n in range(len(shown)) if widths[n] < wanted[n]), key=widths.__getitem__, default=None
            )
            if narrowest is None:
                break
            widths[narrowest] += 1
        return [min(each, width) for each in widths]

    def _least(self, n: int) -> int:
        """Return the width of a column's longest word or number."""
        if self._is_number[n]:
            return self._most(n)
        return max((cell_len(word) for cell in self._cells(n) for word in cell.plain.split()), default=0)

    def _most(self, n: int) -> int:
        return max((cell_len(line) for cell in self._cells(n) for line in cell.plain.split("\n")), default=0)

    def _cells(self, n: int) -> list[Text]:
        heading = [self._headings[n]] if self.show_header else []
        return [*heading, *(row[n] for row in self._rows)]


def _gaps(shown: list[int]) -> int:
    return GAP_COLUMNS * (len(shown) - 1)
