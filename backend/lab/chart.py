"""Bar charts as SVG, for light and dark pages and for print."""

from collections.abc import Sequence
from statistics import median

from lab.svg import line, picture, rectangle, text

WIDTH, BAR, GAP, RIGHT, TOP = 800, 26, 16, 150, 60
CHARACTER = 8.2
"""the approximate width of a character in a label"""


def bars(title: str, subtitle: str, rows: Sequence[tuple[str, list[float], bool]], unit: str) -> str:
    """Return a chart with a bar for the median of each row and a line from its minimum to its maximum.

    Args:
        title: what the chart shows.
        subtitle: how it was measured.
        rows: label, measurements, and True for the row to highlight.
        unit: the unit of the measurements.
    """
    left = 20 + CHARACTER * max(len(label) for label, _, _ in rows)
    scale = (WIDTH - left - RIGHT) / (max(max(values) for _, values, _ in rows) or 1)
    parts = []
    for number, (label, values, is_ours) in enumerate(rows):
        y = TOP + number * (BAR + GAP)
        middle, typical = y + BAR / 2, median(values)
        end, least, greatest = (left + value * scale for value in (typical, min(values), max(values)))
        parts += [
            text(left - 10, middle + 5, label, "label", "end"),
            rectangle("ours" if is_ours else "bar", left, y, end - left, BAR),
            line("spread", least, middle, greatest, middle),
            text(max(end, greatest) + 8, middle + 5, f"{typical:,.0f} {unit}", "label"),
        ]
    return picture((WIDTH, TOP + len(rows) * (BAR + GAP) + 8), title, subtitle, parts)
