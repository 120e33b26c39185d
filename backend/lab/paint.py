"""How charts are painted: the light theme as attributes of each element, dark and print as CSS rules above them.

Many viewers (librsvg, desktop previews) know no CSS variables and paint what they cannot resolve black, and some read
no CSS at all. Attributes are read by all of them, and any CSS rule overrides an attribute.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Colour:
    """A colour in each of the three themes."""

    light: str
    dark: str
    print: str


NONE = Colour("none", "none", "none")
INK = Colour("#1c2430", "#e8ecf1", "#000")
SOFT = Colour("#5b6675", "#a3afbd", "#444")
FAINT = Colour("#d5dbe4", "#3a4657", "#ddd")
BAR = Colour("#9db4d6", "#4b6285", "#bbb")
OURS = Colour("#2f6fd0", "#7fb0ff", "#555")
BAD = Colour("#c0392b", "#ff8a7a", "#000")

PARTS = (
    Colour("#2f6fd0", "#7fb0ff", "#e4e4e4"),
    Colour("#e0a12b", "#f2c063", "#8a8a8a"),
    Colour("#8e5bb5", "#c39be0", "#cfcfcf"),
    Colour("#c0392b", "#ff8a7a", "#444"),
    Colour("#7a828e", "#98a2b0", "#b4b4b4"),
    Colour("#222", "#eee", "#000"),
    Colour("#3f8f6b", "#7cc7a4", "#9c9c9c"),
    Colour("#c76d9b", "#eba5c8", "#666"),
)
"""of the parts of a whole; in print, neighbours differ most, since they touch"""

PRINTED_OUTLINE = Colour("none", "none", "#000")


@dataclass(frozen=True)
class Paint:
    """How the elements of one class look."""

    fill: Colour = NONE
    stroke: Colour = NONE
    more: Mapping[str, str] = field(default_factory=dict)
    """attributes that are the same in every theme"""

    def attributes(self) -> str:
        """Return the light theme as attributes of an element."""
        found = {"fill": self.fill.light, "stroke": self.stroke.light, **self.more}
        return " ".join(f'{name}="{value}"' for name, value in found.items() if (name, value) != ("stroke", "none"))

    def rule(self, theme: str) -> str:
        """Return the declarations of a CSS rule for a theme."""
        found = {"fill": self.fill, "stroke": self.stroke}
        return " ".join(f"{name}: {getattr(colour, theme)};" for name, colour in found.items() if colour != NONE)


def _line(colour: Colour, width: str) -> Paint:
    return Paint(stroke=colour, more={"stroke-width": width})


def _dashed(colour: Colour, width: str, dashes: str) -> Paint:
    return Paint(stroke=colour, more={"stroke-width": width, "stroke-dasharray": dashes})


def _text(colour: Colour, size: str) -> Paint:
    return Paint(colour, more={"font-size": size})


def _bold(colour: Colour, size: str) -> Paint:
    return Paint(colour, more={"font-size": size, "font-weight": "600"})


KINDS = {
    "title": _bold(INK, "16"),
    "name": _bold(INK, "11.5"),
    "label": _text(INK, "14"),
    "value": _text(INK, "11"),
    "soft": _text(SOFT, "12"),
    "tick": _text(SOFT, "10.5"),
    "bar": Paint(BAR),
    "ours": Paint(OURS),
    "spread": _line(INK, "1.5"),
    "dot": Paint(OURS),
    "area": Paint(OURS, more={"opacity": ".35"}),
    "line": _line(OURS, "2.2"),
    "failing": _line(BAD, "2.2"),
    "others": _line(FAINT, "1"),
    "grid": _line(FAINT, "1"),
    "part": _dashed(FAINT, "1", "2 3"),
    "limit": _dashed(BAD, "1.2", "4 3"),
    **{f"kind{number}": Paint(colour, PRINTED_OUTLINE, {"stroke-width": ".5"}) for number, colour in enumerate(PARTS)},
}
"""every class of the charts' elements"""


def painted(kind: str) -> str:
    """Return the class and the colours of an element as attributes."""
    return f'class="{kind}" {KINDS[kind].attributes()}'


def rules(kinds: Iterable[str]) -> str:
    """Return the CSS that repaints elements of these classes on a dark screen and on paper."""
    used = sorted(set(kinds))
    return "\n".join(
        f"@media {query} {{ {' '.join(f'.{kind} {{ {KINDS[kind].rule(theme)} }}' for kind in used)} }}"
        for query, theme in (("(prefers-color-scheme: dark)", "dark"), ("print", "print"))
    )
