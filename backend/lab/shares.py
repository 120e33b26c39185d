"""A chart of wholes and their parts: a bar for each name, divided into kinds."""

from collections.abc import Mapping, Sequence

from lab.chart import STYLE as BASE_STYLE
from lab.svg import picture, rectangle, text

WIDTH, LEFT, BAR_WIDTH, BAR, GAP, TOP, LEGEND = 940, 235, 300, 22, 9, 62, 26
CHARACTER = 6.6
"""about the width of one in the legend"""

STYLE = f"""{BASE_STYLE}
    :root {{ --kind0: #2f6fd0; --kind1: #e0a12b; --kind2: #8e5bb5; --kind3: #c0392b; --kind4: #7a828e; --kind5: #222; }}
    @media (prefers-color-scheme: dark) {{ :root {{
      --kind0: #7fb0ff; --kind1: #f2c063; --kind2: #c39be0; --kind3: #ff8a7a; --kind4: #98a2b0; --kind5: #eee; }} }}
    {" ".join(f".kind{number} {{ fill: var(--kind{number}); }}" for number in range(6))}
"""


def shares(title: str, subtitle: str, rows: Mapping[str, tuple[Mapping[str, float], str]], kinds: Sequence[str]) -> str:
    """Draw it.

    Args:
        title: what the picture shows.
        subtitle: how to read it.
        rows: by name, the share of each kind, and a text to write behind the bar.
        kinds: all there are, up to six, in the order of drawing; each has its colour whether it occurs or not.
    """
    parts, x = [], 0.0
    for number, kind in enumerate(kinds):
        if any(found.get(kind) for found, _ in rows.values()):
            parts += [rectangle(f"kind{number}", x, TOP - 6, 11, 11), text(x + 16, TOP + 4, kind)]
            x += 34 + CHARACTER * len(kind)
    for row, (name, (found, said)) in enumerate(rows.items()):
        y, x = TOP + LEGEND + row * (BAR + GAP), float(LEFT)
        parts.append(text(LEFT - 10, y + 15, name, anchor="end"))
        for number, kind in enumerate(kinds):
            width = found.get(kind, 0) * BAR_WIDTH
            parts.append(rectangle(f"kind{number}", x, y, width, BAR))
            x += width
        parts.append(text(LEFT + BAR_WIDTH + 10, y + 15, said))
    return picture((WIDTH, TOP + LEGEND + len(rows) * (BAR + GAP) + 6), STYLE, title, subtitle, parts)
