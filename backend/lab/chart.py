"""Charts as SVG that a page shows in light and dark, and that print."""

from collections.abc import Sequence
from html import escape

WIDTH, BAR, GAP, LEFT, RIGHT, TOP = 760, 26, 16, 170, 150, 60

STYLE = """
    :root { --ink: #1c2430; --soft: #5b6675; --bar: #9db4d6; --ours: #2f6fd0; }
    @media (prefers-color-scheme: dark) { :root { --ink: #e8ecf1; --soft: #a3afbd; --bar: #4b6285; --ours: #7fb0ff; } }
    @media print { :root { --ink: #000; --soft: #444; --bar: #bbb; --ours: #555; } }
    text { fill: var(--ink); font: 14px system-ui, 'DejaVu Sans', sans-serif; }
    .soft { fill: var(--soft); font-size: 12px; } .title { font-weight: 600; font-size: 16px; }
    .bar { fill: var(--bar); } .ours { fill: var(--ours); } .spread { stroke: var(--ink); stroke-width: 1.5; }
"""


def bars(title: str, subtitle: str, rows: Sequence[tuple[str, list[float], bool]], unit: str) -> str:
    """Draw a bar for each row: its median, with a line from its least to its greatest measurement.

    Args:
        title: what the picture shows.
        subtitle: how it was measured.
        rows: a label, the measurements, and whether the row is the one the picture is about.
        unit: of the measurements.
    """
    longest = max(max(values) for _, values, _ in rows)
    scale = (WIDTH - LEFT - RIGHT) / longest
    height = TOP + len(rows) * (BAR + GAP) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"',
        f'     aria-label="{escape(title)}">',
        f"  <style>{STYLE}  </style>",
        f'  <text class="title" x="0" y="20">{escape(title)}</text>',
        f'  <text class="soft" x="0" y="42">{escape(subtitle)}</text>',
    ]
    for number, (label, values, is_ours) in enumerate(rows):
        y = TOP + number * (BAR + GAP)
        middle, median = y + BAR / 2, sorted(values)[len(values) // 2]
        end = LEFT + median * scale
        least, greatest = LEFT + min(values) * scale, LEFT + max(values) * scale
        parts += [
            f'  <text x="{LEFT - 10}" y="{middle + 5}" text-anchor="end">{escape(label)}</text>',
            f'  <rect class="{"ours" if is_ours else "bar"}" x="{LEFT}" y="{y}"',
            f'        width="{end - LEFT:.1f}" height="{BAR}" rx="3"/>',
            f'  <line class="spread" x1="{least:.1f}" x2="{greatest:.1f}" y1="{middle}" y2="{middle}"/>',
            f'  <text x="{max(end, greatest) + 8:.1f}" y="{middle + 5}">{median:,.0f} {escape(unit)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
