"""A chart of shares: a bar for each name, divided into kinds."""

from collections.abc import Mapping, Sequence

from lab.svg import picture, rectangle, text

WIDTH, LEFT, BAR_WIDTH, BAR, GAP, TOP, LINE = 990, 235, 300, 22, 9, 62, 20
CHARACTER = 6.6
"""the approximate width of a character in the legend"""


def shares(title: str, subtitle: str, rows: Mapping[str, tuple[Mapping[str, float], str]], kinds: Sequence[str]) -> str:
    """Return a chart with a bar for each row, divided by the shares of its kinds.

    Args:
        title: what the chart shows.
        subtitle: how to read it.
        rows: by name, the share of each kind, and a note to the right of the bar.
        kinds: all possible kinds, at most eight, in the order of drawing; the order decides their colours.
    """
    classes = {kind: f"kind{number}" for number, kind in enumerate(kinds)}
    occurring = {kind: name for kind, name in classes.items() if any(found.get(kind) for found, _ in rows.values())}
    parts, y = _legend(occurring)
    for name, (found, note) in rows.items():
        parts += [text(LEFT - 10, y + 15, name, anchor="end"), text(LEFT + BAR_WIDTH + 10, y + 15, note)]
        x = float(LEFT)
        for kind, class_ in occurring.items():
            width = found.get(kind, 0) * BAR_WIDTH
            parts.append(rectangle(class_, x, y, width, BAR))
            x += width
        y += BAR + GAP
    return picture((WIDTH, y + 6), title, subtitle, parts)


def _legend(classes: Mapping[str, str]) -> tuple[list[str], float]:
    """Return the legend in as many lines as it needs, and the y below it."""
    parts, x, y = [], 0.0, float(TOP)
    for kind, class_ in classes.items():
        width = 34 + CHARACTER * len(kind)
        if x + width > WIDTH:
            x, y = 0.0, y + LINE
        parts += [rectangle(class_, x, y - 6, 11, 11), text(x + 16, y + 4, kind)]
        x += width
    return parts, y + LINE
