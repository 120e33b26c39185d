"""Charts of many strategies: a small panel for each, all with the same axes, so that shapes can be compared."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.svg import cross, dot, line, path, picture, polygon, text

COLUMNS, WIDTH, HEIGHT, NAME, TOP, TICKS = 4, 202, 104, 20, 62, 40
RIGHT, BELOW = 46, 34
"""the space beside a panel for its value, and below it for the x axis"""


@dataclass(frozen=True)
class Point:
    """A measurement at one of the positions on the x axis."""

    value: float | None
    is_failing: bool = False
    """drawn as a cross: errors, or a load that was not steady"""


@dataclass(frozen=True)
class Axis:
    """The y axis that all panels share."""

    least: float
    greatest: float
    is_logarithmic: bool = False

    def y(self, value: float) -> float:
        """Return the position of a value in a panel."""
        return HEIGHT * (1 - self._share(value))

    def _share(self, value: float) -> float:
        if self.is_logarithmic:
            low, high = math.log(self.least), math.log(self.greatest)
            return (math.log(max(value, self.least)) - low) / (high - low)
        return (value - self.least) / (self.greatest - self.least)

    @property
    def ticks(self) -> list[float]:
        """Round values for grid lines."""
        if self.is_logarithmic:
            decades = self._between(1)
            return decades if len(decades) > 1 else self._between(1, 3)
        span = self.greatest - self.least
        step: float = 10 ** math.floor(math.log10(span))
        while span / step > 4:
            step *= 2
        return [self.least + number * step for number in range(int(span / step) + 1)]

    def _between(self, *steps: int) -> list[float]:
        """Return the multiples of each power of ten that lie on the axis."""
        powers = range(math.floor(math.log10(self.least)), math.ceil(math.log10(self.greatest)) + 1)
        found = [step * 10.0**power for power in powers for step in steps]
        return [value for value in found if self.least <= value <= self.greatest]


def lines(title: str, subtitle: str, panels: Mapping[str, Sequence[Point]], labels: Sequence[str], axis: Axis) -> str:
    """Return a chart with a line in each panel, the other lines in grey behind it, and its last value beside it.

    Args:
        title: what the chart shows.
        subtitle: how to read it.
        panels: by name, one point for each label; a point without a value leaves a gap.
        labels: the labels of the x axis.
        axis: the y axis.
    """
    step = WIDTH / max(1, len(labels) - 1)
    places = {name: _places(points, step, axis) for name, points in panels.items()}
    behind = _grid(axis) + "".join(path("others", line_) for line_ in places.values())
    anchors = ["start", *["middle"] * (len(labels) - 2), "end"]
    for number, (label, anchor) in enumerate(zip(labels, anchors, strict=False)):
        behind += text(number * step, HEIGHT + 16, label, "tick", anchor)
    bodies = {}
    for name, points in panels.items():
        marks = [path("line", places[name])]
        for point, place in zip(points, places[name], strict=True):
            if place is not None:
                marks.append(cross("failing", *place) if point.is_failing else dot("dot", *place))
        last = points[-1].value
        value = "" if last is None else _beside(last, axis)
        bodies[name] = "".join([behind, *marks, value])
    return _panels(title, subtitle, bodies, axis)


def areas(
    title: str,
    subtitle: str,
    panels: Mapping[str, Sequence[Sequence[tuple[float, float]]]],
    labels: Sequence[str],
    limit: float,
) -> str:
    """Return a chart of a number over time, in consecutive parts; beside each panel is its maximum.

    Args:
        title: what the chart shows.
        subtitle: how to read it.
        panels: by name, one part for each label: seconds since the part began, and values.
        labels: the labels of the parts.
        limit: the value of the dashed line.
    """
    most = {name: max((value for part in parts for _, value in part), default=0) for name, parts in panels.items()}
    axis = Axis(0, max([limit, *most.values()]) * 1.08)
    width = WIDTH / len(labels)
    behind = _grid(axis) + line("limit", 0, axis.y(limit), WIDTH, axis.y(limit))
    for number, label in enumerate(labels):
        behind += text((number + 0.5) * width, HEIGHT + 16, label, "tick", "middle")
        behind += line("part", number * width, 0, number * width, HEIGHT)
    bodies = {
        name: behind
        + "".join(_area(part, number * width, width, axis) for number, part in enumerate(parts) if part)
        + _beside(most[name], axis)
        for name, parts in panels.items()
    }
    return _panels(title, subtitle, bodies, axis)


def _area(part: Sequence[tuple[float, float]], left: float, width: float, axis: Axis) -> str:
    length_s = part[-1][0] or 1.0
    points = [(left + at_s / length_s * (width - 2), axis.y(value)) for at_s, value in part]
    return polygon("area", [(points[0][0], HEIGHT), *points, (points[-1][0], HEIGHT)])


def _places(points: Sequence[Point], step: float, axis: Axis) -> list[tuple[float, float] | None]:
    return [
        None if point.value is None else (number * step, axis.y(point.value)) for number, point in enumerate(points)
    ]


def _grid(axis: Axis) -> str:
    return "".join(line("grid", 0, axis.y(tick), WIDTH, axis.y(tick)) for tick in axis.ticks)


def _ticks(axis: Axis) -> str:
    return "".join(text(-5, axis.y(tick) + 3.5, f"{tick:,.0f}", "tick", "end") for tick in axis.ticks)


def _beside(value: float, axis: Axis) -> str:
    return text(WIDTH + 7, axis.y(value) + 4, f"{value:,.0f}", "value")


def _panels(title: str, subtitle: str, bodies: Mapping[str, str], axis: Axis) -> str:
    """Arrange panels in rows; the first of each row shows the ticks of the shared axis."""
    across, down = WIDTH + RIGHT, HEIGHT + NAME + BELOW
    parts = []
    for number, (name, body) in enumerate(bodies.items()):
        row, column = divmod(number, COLUMNS)
        head = text(0, -7, name, "name") + (_ticks(axis) if column == 0 else "")
        parts.append(f'<g transform="translate({TICKS + column * across} {TOP + NAME + row * down})">{head}{body}</g>')
    height = TOP + math.ceil(len(bodies) / COLUMNS) * down
    return picture((TICKS + COLUMNS * across, height), title, subtitle, parts)
