"""What a program wrote on a terminal, as a picture."""

from xml.etree import ElementTree

from sandbox.terminal_svg import CELL_WIDTH, MARGIN, PLAIN, svg_of

SVG = "{http://www.w3.org/2000/svg}"


def words_of(written: str) -> list[ElementTree.Element]:
    """Return the words of a picture, without that of its title bar."""
    return ElementTree.fromstring(svg_of(written, "command", 40)).findall(f"{SVG}text")[1:]


def test_words_keep_their_columns_and_lines() -> None:
    first, second, below = words_of("in use  idle\n        12")
    assert (first.text, second.text, below.text) == ("in use", "idle", "12")
    assert float(second.attrib["x"]) == float(below.attrib["x"]) == round(MARGIN + 8 * CELL_WIDTH, 1)
    assert first.attrib["y"] == second.attrib["y"] < below.attrib["y"]


def test_colours_and_bold_are_attributes() -> None:
    plain, red = words_of("an  \x1b[1;31merror\x1b[0m")
    assert plain.attrib["fill"] == PLAIN
    assert "font-weight" not in plain.attrib
    assert (red.attrib["fill"], red.attrib["font-weight"]) == ("#ff7b72", "bold")


def test_what_looks_like_markup_is_text() -> None:
    (word,) = words_of("<b> & [red]x[/red]")
    assert word.text == "<b> & [red]x[/red]"


def test_the_command_is_the_title() -> None:
    root = ElementTree.fromstring(svg_of("x", "manage.py db_pool_status", 40))
    assert root.findtext(f"{SVG}title") == "manage.py db_pool_status"
