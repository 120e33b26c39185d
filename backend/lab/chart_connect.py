"""The chart of what a connection costs: panels with rows of bars, one bar for each driver."""

from collections.abc import Sequence

from lab.svg import line, picture, rectangle, text

WIDTH, THICK, GAP, LEFT, RIGHT, HEAD, PANEL = 760, 12, 14, 210, 200, 64, 34

Bar = tuple[str, float, Sequence[float]]
"""its name in the legend, its value, and the measurements between whose extremes it lies"""
Row = tuple[str, Sequence[Bar], str]
"""label, bars, and a note at the right"""


def panels(title: str, subtitle: str, each: Sequence[tuple[str, str, Sequence[Row]]]) -> str:
    """Return a chart of panels one below the other, each with its own scale.

    Args:
        title: what the chart shows.
        subtitle: how it was measured.
        each: for each panel its heading, unit and rows.
    """
    parts, y = _legend(each[0][2][0][1]), float(HEAD)
    for heading, unit, rows in each:
        drawn, y = _panel(heading, unit, rows, y)
        parts += drawn
    return picture((WIDTH, round(y)), title, subtitle, parts)


def _legend(bars: Sequence[Bar]) -> list[str]:
    parts = []
    for number, (name, _, _) in enumerate(bars):
        x = WIDTH - 110 * (len(bars) - number)
        parts += [rectangle(_class(number), x, 8, THICK, THICK), text(x + THICK + 6, 18, name)]
    return parts


def _panel(heading: str, unit: str, rows: Sequence[Row], y: float) -> tuple[list[str], float]:
    """Return the elements of a panel, and the y at which the next begins."""
    scale = (WIDTH - LEFT - RIGHT) / max(max(values) for _, bars, _ in rows for _, _, values in bars)
    parts = [text(0, y + 12, heading)]
    y += PANEL
    for label, bars, note in rows:
        height = len(bars) * THICK
        parts += [text(LEFT - 10, y + height / 2 + 5, label, "label", "end")]
        parts += [text(WIDTH, y + height / 2 + 4, note, "soft", "end")]
        for number, bar in enumerate(bars):
            parts += _bar(bar, unit, scale, y + number * THICK, number)
        y += height + GAP
    return parts, y + GAP


def _bar(bar: Bar, unit: str, scale: float, y: float, number: int) -> list[str]:
    """Return a bar with its value and a line from the minimum to the maximum."""
    _, figure, values = bar
    middle, length = y + THICK / 2, figure * scale
    least, greatest = LEFT + min(values) * scale, LEFT + max(values) * scale
    return [
        rectangle(_class(number), LEFT, y, length, THICK - 1),
        line("spread", least, middle, greatest, middle),
        text(max(LEFT + length, greatest) + 6, middle + 4, f"{figure:.1f} {unit}"),
    ]


def _class(number: int) -> str:
    return ("ours", "bar")[number]
