"""docs/poolhouse.md is complete: a failure here is to be fixed in the page."""

import ast
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from config.env import CHECKOUT
from poolhouse.conf import Options
from poolhouse.engines.options import PoolOptions

MANUAL = (CHECKOUT / "docs/poolhouse.md").read_text()


def table_of(header: str) -> dict[str, str]:
    """Return the first two columns of the table with a header; a row may name several keys."""
    rows = MANUAL.split(f"| {header} |")[1].split("\n\n")[0].splitlines()[2:]
    found: dict[str, str] = {}
    for row in rows:
        keys, defaults = (re.findall(r"`([^`]+)`", cell) for cell in row.split(" | ")[:2])
        found |= dict(zip(keys, defaults if len(defaults) > 1 else defaults * len(keys), strict=True))
    return found


@pytest.mark.parametrize(
    ("header", "options"), [("Key of `POOLHOUSE`", Options), ("Key of `POOL_OPTIONS`", PoolOptions)]
)
def test_every_key_is_in_the_manual_with_its_default(header: str, options: type[Any]) -> None:
    defaults = {one.name: {} if one.default is MISSING else one.default for one in fields(options)}
    written = {key: ast.literal_eval(default) for key, default in table_of(header).items()}
    assert written == defaults, f"docs/poolhouse.md, the table of {header}: one row for each key, with its default"


def test_every_check_is_in_the_manual() -> None:
    code = "".join(path.read_text() for path in Path(CHECKOUT / "backend/poolhouse").rglob("*.py"))
    assert set(re.findall(r'id="(poolhouse\.[A-Z]\w+)"', code)) == set(table_of_ids()), (
        "docs/poolhouse.md, Checks: a row each"
    )


def table_of_ids() -> list[str]:
    return re.findall(r"^\| `(poolhouse\.[A-Z]\d+)` \|", MANUAL, re.MULTILINE)
