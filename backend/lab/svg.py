"""The elements that the lab's charts are made of."""

import re
from collections.abc import Iterable
from html import escape

from lab.paint import painted, rules

FONT = "system-ui, 'DejaVu Sans', sans-serif"


def text(x: float, y: float, words: str, kind: str = "soft", anchor: str = "start") -> str:
    """Return text; `anchor` is the end of it that stands at x."""
    return f'<text {painted(kind)} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """Return a straight line."""
    return f'<line {painted(kind)} x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def rectangle(kind: str, x: float, y: float, width: float, height: float) -> str:
    """Return a rectangle; x and y are its upper left corner."""
    return f'<rect {painted(kind)} x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def dot(kind: str, x: float, y: float) -> str:
    """Return a dot around a point."""
    return f'<circle {painted(kind)} cx="{x:.1f}" cy="{y:.1f}" r="3.4"/>'


def cross(kind: str, x: float, y: float) -> str:
    """Return a cross, which differs from a dot without colours too."""
    reach = 3.6
    strokes = f"M{x - reach:.1f} {y - reach:.1f}l{2 * reach} {2 * reach}m0 {-2 * reach}l{-2 * reach} {2 * reach}"
    return f'<path {painted(kind)} d="{strokes}"/>'


def path(kind: str, points: Iterable[tuple[float, float] | None]) -> str:
    """Return a line through points, interrupted at each None."""
    steps, move = [], "M"
    for point in points:
        if point is None:
            move = "M"
            continue
        steps.append(f"{move}{point[0]:.1f} {point[1]:.1f}")
        move = "L"
    return f'<path {painted(kind)} d="{"".join(steps)}"/>'


def polygon(kind: str, points: Iterable[tuple[float, float]]) -> str:
    """Return the area between points, filled."""
    outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon {painted(kind)} points="{outline}"/>'


def picture(size: tuple[float, float], title: str, subtitle: str, parts: Iterable[str]) -> str:
    """Return an SVG document of parts under a title; the size is width and height."""
    drawn = [text(0, 20, title, "title"), text(0, 42, subtitle), *parts]
    kinds = re.findall(r'class="(\w+)"', "".join(drawn))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]:.0f} {size[1]:.0f}"'
    looks = f'font-family="{FONT}" font-size="14" role="img" aria-label="{escape(title)}"'
    return "\n".join([f"{head} {looks}>", f"<style>\n{rules(kinds)}\n</style>", *drawn, "</svg>", ""])
