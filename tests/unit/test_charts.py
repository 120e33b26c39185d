"""The lab's charts are well-formed, in the right places, and readable in viewers without CSS."""

import re
from xml.etree import ElementTree

import pytest

from config.env import CHECKOUT
from lab import chart, chart_connect, paint, panels, shares
from lab.panels import Axis, Point

SVG = "{http://www.w3.org/2000/svg}"


def test_a_linear_axis_is_upside_down_as_svg_is() -> None:
    axis = Axis(0, 200)
    assert (axis.y(0), axis.y(200), axis.y(50)) == (panels.HEIGHT, 0, panels.HEIGHT * 0.75)


def test_a_logarithmic_axis_gives_each_decade_the_same_height() -> None:
    axis = Axis(1, 1000, is_logarithmic=True)
    assert axis.y(10) - axis.y(100) == pytest.approx(axis.y(1) - axis.y(10))
    assert axis.ticks == [1, 10, 100, 1000]


@pytest.mark.parametrize("greatest", [0.7, 3, 45, 999, 12345])
def test_a_linear_axis_has_a_few_ticks(greatest: float) -> None:
    ticks = Axis(0, greatest).ticks
    assert 2 <= len(ticks) <= 5
    assert ticks[-1] <= greatest


def test_a_panel_is_drawn_for_each_name_and_failing_points_are_marked() -> None:
    drawn = panels.lines(
        "A & B",
        "how",
        {"a": [Point(1), Point(2, is_failing=True)], "b": [Point(None), Point(3)]},
        ["8", "32"],
        Axis(0, 4),
    )
    root = ElementTree.fromstring(drawn)
    assert root.get("aria-label") == "A & B"
    assert len(root.findall(f"{SVG}g")) == 2
    assert [dot.get("class") for dot in root.iter(f"{SVG}circle")] == ["dot", "dot"]
    assert len([mark for mark in root.iter(f"{SVG}path") if mark.get("class") == "failing"]) == 1


def test_areas_show_their_maximum() -> None:
    drawn = panels.areas("t", "s", {"a": [[(0.1, 5.0), (0.2, 7.0)], []]}, ["8", "32"], 35)
    root = ElementTree.fromstring(drawn)
    assert [said.text for said in root.iter(f"{SVG}text") if said.get("class") == "value"] == ["7"]
    assert len(list(root.iter(f"{SVG}polygon"))) == 1


def test_the_shared_axis_is_labelled_once_per_row() -> None:
    drawn = panels.lines("t", "s", {name: [Point(1), Point(2)] for name in "abcde"}, ["8", "32"], Axis(0, 2))
    ticks = [said.text for said in ElementTree.fromstring(drawn).iter(f"{SVG}text") if said.get("class") == "tick"]
    assert (ticks.count("2"), ticks.count("32")) == (2, 5)


def test_shares_fill_the_bar_and_keep_their_colours() -> None:
    drawn = shares.shares("t", "s", {"a": ({"good": 0.75, "bad": 0.25}, "text")}, ["good", "odd", "bad"])
    root = ElementTree.fromstring(drawn)
    bars = [one for one in root.iter(f"{SVG}rect") if one.get("height") == f"{shares.BAR:.1f}"]
    assert sum(float(bar.get("width", "0")) for bar in bars) == pytest.approx(shares.BAR_WIDTH)
    assert bars[-1].get("class") == "kind2"
    assert "odd" not in drawn


def test_a_long_legend_wraps_into_lines() -> None:
    kinds = [f"the outcome of {number} requests in a hundred" for number in range(len(paint.PARTS))]
    drawn = shares.shares("t", "s", {"a": (dict.fromkeys(kinds, 1 / len(kinds)), "text")}, kinds)
    marks = [one for one in ElementTree.fromstring(drawn).iter(f"{SVG}rect") if one.get("width") == "11.0"]
    assert len(marks) == len(kinds)
    assert max(float(mark.get("x", "")) for mark in marks) < shares.WIDTH
    assert len({mark.get("y") for mark in marks}) > 1


KINDS = [f"kind {number}" for number in range(len(paint.PARTS))]
DRAWN = {
    "bars": chart.bars("t", "s", [("a", [50, 100], True), ("b", [1, 2], False)], "u"),
    "lines": panels.lines("t", "s", {"a": [Point(1), Point(2, is_failing=True)]}, ["8", "32"], Axis(0, 4)),
    "areas": panels.areas("t", "s", {"a": [[(0.1, 5.0), (0.2, 7.0)]]}, ["8"], 35),
    "shares": shares.shares("t", "s", {"a": (dict.fromkeys(KINDS, 1 / len(KINDS)), "text")}, KINDS),
    "connect": chart_connect.panels("t", "s", [("h", "ms", [("a", [("x", 1, [1]), ("y", 2, [2])], "note")])]),
    **{
        str(path.relative_to(CHECKOUT)): path.read_text()
        for path in (CHECKOUT / "docs/system.svg", *(CHECKOUT / "docs/lab").glob("*.svg"))
    },
}
SHAPES = {f"{SVG}{name}" for name in ("text", "line", "rect", "circle", "path", "polygon")}


@pytest.mark.parametrize("name", DRAWN)
def test_every_shape_has_its_colour_as_an_attribute(name: str) -> None:
    """Viewers without CSS variables, or without CSS, paint what has no such attribute black."""
    shapes = [element for element in ElementTree.fromstring(DRAWN[name]).iter() if element.tag in SHAPES]
    assert shapes
    for shape in shapes:
        colours = {shape.get("fill", "none"), shape.get("stroke", "none")} - {"none"}
        assert colours, ElementTree.tostring(shape)
        assert all(colour.startswith("#") for colour in colours), ElementTree.tostring(shape)


@pytest.mark.parametrize("name", DRAWN)
def test_no_colour_is_a_css_variable(name: str) -> None:
    assert "var(" not in DRAWN[name]


@pytest.mark.parametrize("name", DRAWN)
def test_dark_screens_repaint_every_class_that_occurs(name: str) -> None:
    root = ElementTree.fromstring(DRAWN[name])
    (style,) = root.iter(f"{SVG}style")
    repainted = re.findall(r"\.(\w+)(?=[ ,])", (style.text or "").partition("prefers-color-scheme: dark")[2])
    occurring = {name for element in root.iter() for name in element.get("class", "").split()}
    assert occurring <= set(repainted)


def test_a_bar_is_as_long_as_its_median() -> None:
    drawn = chart.bars("t", "s", [("a", [50, 100, 200], True), ("b", [100, 200, 200], False)], "requests/s")
    short, long = (float(bar.get("width", "0")) for bar in ElementTree.fromstring(drawn).iter(f"{SVG}rect"))
    assert long == pytest.approx(2 * short, abs=0.11)


def test_the_median_of_an_even_count_lies_between_the_middle_ones() -> None:
    drawn = chart.bars("t", "s", [("a", [100, 200], True)], "requests/s")
    assert "150 requests/s" in drawn


def test_a_bar_without_answers_has_no_length() -> None:
    (bar,) = ElementTree.fromstring(chart.bars("t", "s", [("a", [0, 0], False)], "u")).iter(f"{SVG}rect")
    assert bar.get("width") == "0.0"


def test_an_axis_within_a_decade_has_ticks_between() -> None:
    assert Axis(76, 8700, is_logarithmic=True).ticks == [100, 1000]
    assert Axis(120, 8700, is_logarithmic=True).ticks == [300, 1000, 3000]


def test_ticks_reach_as_far_as_latencies_of_seconds() -> None:
    assert Axis(0.8, 13_000, is_logarithmic=True).ticks == [1, 10, 100, 1000, 10_000]
