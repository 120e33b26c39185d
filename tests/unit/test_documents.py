"""The README and the pages that it names: short, without dead links, and with pictures that any viewer can draw."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from config.env import CHECKOUT

README = CHECKOUT / "README.md"
README_MAX_WORDS = 400
LINE_MAX_COLUMNS = 120
PAGES = [
    README,
    CHECKOUT / "CONTRIBUTING.md",
    CHECKOUT / "backend/poolhouse/README.md",
    CHECKOUT / "deploy/README.md",
    *(CHECKOUT / f"docs/{name}.md" for name in ("architecture", "configuration", "http", "sandbox", "security")),
    *sorted((CHECKOUT / "docs/guides").glob("*.md")),
]
GENERATED = "| `DB_POOL_STRATEGY` |"
"""begins the table that config.strategies writes"""
PICTURE = CHECKOUT / "docs/db_pool_status.svg"

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))


def test_the_readme_is_short() -> None:
    assert len(README.read_text().split()) <= README_MAX_WORDS


@each_page
def test_no_line_is_too_long(page: Path) -> None:
    text = re.sub(rf"^{re.escape(GENERATED)}.*?\n\n", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    too_long = [line for line in text.splitlines() if len(line) > LINE_MAX_COLUMNS]
    assert too_long == [], f"break these lines of {page} at {LINE_MAX_COLUMNS} columns"


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    dead = [link for link in links_of(page) if not leads_somewhere(page, link)]
    assert dead == [], f"mend the links of {page}"


def links_of(page: Path) -> list[str]:
    """Return the links of a page to other files of the checkout."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


def leads_somewhere(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    return target.exists() and (not anchor or anchor in anchors_of(target))


def anchors_of(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_of_the_wheel_needs_no_other_file() -> None:
    assert links_of(CHECKOUT / "backend/poolhouse/README.md") == []


def test_the_picture_has_its_colours_as_attributes_and_needs_nothing_from_elsewhere() -> None:
    text = PICTURE.read_text()
    root = ElementTree.fromstring(text)
    namespace = root.tag.removesuffix("svg")
    words = root.findall(f"{namespace}text")
    assert words
    assert all(re.fullmatch("#[0-9a-f]{6}", word.attrib["fill"]) for word in words)
    assert not re.search(r"<style|class=|href|url\(|var\(", text)
    assert re.findall(r"\w+://[^\"]+", text) == ["http://www.w3.org/2000/svg"]


def test_the_picture_shows_a_verdict_and_the_services() -> None:
    text = PICTURE.read_text()
    assert "CRITICAL" in text
    assert {"web", "worker", "beat"} <= set(re.findall(r">(\w+)</text>", text)), "take it again: scripts/picture"
