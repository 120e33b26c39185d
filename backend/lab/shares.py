"""A chart of wholes and their parts: a bar for each name, divided into kinds."""

from collections.abc import Mapping, Sequence

from lab.chart import STYLE as BASE_STYLE
from lab.svg import picture, rectangle, text

WIDTH, LEFT, BAR_WIDTH, BAR, GAP, TOP, LINE = 940, 235, 300, 22, 9, 62, 20
CHARACTER = 6.6
"""about the width of one in the legend"""

LIGHT = ("#2f6fd0", "#e0a12b", "#8e5bb5", "#c0392b", "#7a828e", "#222", "#3f8f6b", "#c76d9b")
DARK = ("#7fb0ff", "#f2c063", "#c39be0", "#ff8a7a", "#98a2b0", "#eee", "#7cc7a4", "#eba5c8")
# The steps are great between neighbours, since they meet.
PRINT = ("#e4e4e4", "#8a8a8a", "#cfcfcf", "#444", "#b4b4b4", "#000", "#9c9c9c", "#666")


def _palette(colours: Sequence[str]) -> str:
    return f":root {{ {' '.join(f'--kind{number}: {colour};' for number, colour in enumerate(colours))} }}"


STYLE = f"""{BASE_STYLE}
    {_palette(LIGHT)}
    @media (prefers-color-scheme: dark) {{ {_palette(DARK)} }}
    @media print {{ {_palette(PRINT)} .kind {{ stroke: #000; stroke-width: .5; }} }}
    {" ".join(f".kind{number} {{ fill: var(--kind{number}); }}" for number in range(len(LIGHT)))}
"""


def shares(title: str, subtitle: str, rows: Mapping[str, tuple[Mapping[str, float], str]], kinds: Sequence[str]) -> str:
    """Draw it.

    Args:
        title: what the picture shows.
        subtitle: how to read it.
        rows: by name, the share of each kind, and a text to write behind the bar.
        kinds: all there are, up to eight, in the order of drawing; each has its colour whether it occurs or not.
    """
    classes = {kind: f"kind kind{number}" for number, kind in enumerate(kinds)}
    occurring = {kind: name for kind, name in classes.items() if any(found.get(kind) for found, _ in rows.values())}
    parts, y = _legend(occurring)
    for name, (found, said) in rows.items():
        parts += [text(LEFT - 10, y + 15, name, anchor="end"), text(LEFT + BAR_WIDTH + 10, y + 15, said)]
        x = float(LEFT)
        for kind, class_ in occurring.items():
            width = found.get(kind, 0) * BAR_WIDTH
            parts.append(rectangle(class_, x, y, width, BAR))
            x += width
        y += BAR + GAP
    return picture((WIDTH, y + 6), STYLE, title, subtitle, parts)


def _legend(classes: Mapping[str, str]) -> tuple[list[str], float]:
    """Draw it in as many lines as it takes, and say where what follows begins."""
    parts, x, y = [], 0.0, float(TOP)
    for kind, class_ in classes.items():
        width = 34 + CHARACTER * len(kind)
        if x + width > WIDTH:
            x, y = 0.0, y + LINE
        parts += [rectangle(class_, x, y - 6, 11, 11), text(x + 16, y + 4, kind)]
        x += width
    return parts, y + LINE
