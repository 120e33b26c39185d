"""docs/app has what the code has; what fails here is corrected there."""

import ast
import re
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from config.env import CHECKOUT
from poolhouse.conf import Options
from poolhouse.engines.options import PoolOptions
from poolhouse.metrics.families import families_of
from poolhouse.servers.pgbouncer import PgBouncer
from tests.unit.test_metrics import look

SETTINGS = (CHECKOUT / "docs/app/settings.md").read_text()
CHECKS = (CHECKOUT / "docs/app/checks.md").read_text()
PAGES = [
    *(CHECKOUT / "docs/app").glob("*.md"),
    *(CHECKOUT / "docs" / name for name in ("choosing.md", "evidence.md")),
    *(CHECKOUT / "docs").glob("sizing*.md"),
]
TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def rows_of(header: str) -> dict[str, tuple[str, Any]]:
    """The type and the default of each key, of all tables with a header."""
    found: dict[str, tuple[str, Any]] = {}
    for table in SETTINGS.split(f"| {header} |")[1:]:
        for row in table.split("\n\n")[0].splitlines()[2:]:
            key, kind, default, _ = row.removeprefix("| ").split(" | ", 3)
            assert key.strip("`") not in found, f"docs/app/settings.md: {key} has two rows"
            found[key.strip("`")] = kind, ast.literal_eval(default.strip("`"))
    return found


def written_type(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    return TYPES.get(kind, "dictionary")


@pytest.mark.parametrize(
    ("header", "options"), [("Key of `POOLHOUSE`", Options), ("Key of `POOL_OPTIONS`", PoolOptions)]
)
def test_every_key_is_in_the_manual_with_its_type_and_default(header: str, options: type[Any]) -> None:
    read = {
        one.name: (written_type(one.type), {} if one.default is MISSING else one.default) for one in fields(options)
    }
    assert rows_of(header) == read, f"docs/app/settings.md, the tables of {header}: correct these rows"


def test_every_check_is_in_the_manual() -> None:
    code = "".join(path.read_text() for path in Path(CHECKOUT / "backend/poolhouse").rglob("*.py"))
    written = re.findall(r"^\| `(poolhouse\.[A-Z]\d+)` \|", CHECKS, re.MULTILINE)
    assert set(re.findall(r'id="(poolhouse\.[A-Z]\w+)"', code)) == set(written), "docs/app/checks.md: one row each"


def test_every_metric_is_in_the_manual() -> None:
    seen = look()
    seen = replace(seen, status=replace(seen.status, pgbouncer=PgBouncer("1.23", [], [], [], [])))
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families_of(seen)}
    page = (CHECKOUT / "docs/app/metrics.md").read_text()
    written = re.findall(r"`((?:poolhouse|db_client)_\w+)`", page)
    assert set(written) == names, "docs/app/metrics.md: one row for each metric"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_to_a_page_and_a_heading_that_exist(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that a forge makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_line_is_longer_than_120_characters(page: Path) -> None:
    assert [line for line in page.read_text().splitlines() if len(line) > 120] == []
