"""docs/app has what the code has; what fails here is corrected there."""

import ast
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from config.env import CHECKOUT
from poolhouse.conf import Options
from poolhouse.engines.options import PoolOptions

SETTINGS = (CHECKOUT / "docs/app/settings.md").read_text()
CHECKS = (CHECKOUT / "docs/app/checks.md").read_text()
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
