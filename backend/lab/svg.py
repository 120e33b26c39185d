"""The elements that the lab's charts are made of."""

from collections.abc import Iterable
from html import escape


def text(x: float, y: float, said: str, kind: str = "soft", anchor: str = "start") -> str:
    """Write words; `anchor` says which end of them is at x."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """Draw a line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def rectangle(kind: str, x: float, y: float, width: float, height: float) -> str:
    """Draw a rectangle."""
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def dot(kind: str, x: float, y: float) -> str:
    """Draw a dot."""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.4"/>'


def cross(kind: str, x: float, y: float) -> str:
    """Draw a cross, which is told from a dot without colours too."""
    reach = 3.6
    strokes = f"M{x - reach:.1f} {y - reach:.1f}l{2 * reach} {2 * reach}m0 {-2 * reach}l{-2 * reach} {2 * reach}"
    return f'<path class="{kind}" d="{strokes}"/>'


def path(kind: str, points: Iterable[tuple[float, float] | None]) -> str:
    """Draw a line through points; it is broken at None."""
    steps, move = [], "M"
    for point in points:
        if point is None:
            move = "M"
            continue
        steps.append(f"{move}{point[0]:.1f} {point[1]:.1f}")
        move = "L"
    return f'<path class="{kind}" d="{"".join(steps)}"/>'


def polygon(kind: str, points: Iterable[tuple[float, float]]) -> str:
    """Fill what lies between points."""
    outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon class="{kind}" points="{outline}"/>'


def picture(size: tuple[float, float], style: str, title: str, subtitle: str, parts: Iterable[str]) -> str:
    """Put parts under a title; the size is width and height."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]:.0f} {size[1]:.0f}" role="img"'
    lines = [
        f'{head} aria-label="{escape(title)}">',
        f"<style>{style}</style>",
        text(0, 20, title, "title"),
        text(0, 42, subtitle),
    ]
    return "\n".join([*lines, *parts, "</svg>", ""])
