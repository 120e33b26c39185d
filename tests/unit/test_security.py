"""The limits in docs/security.md are those of the settings."""

import re

from config.env import CHECKOUT, SECTIONS, Ingest, Web
from tests.unit.test_env import as_written

PAGE = re.sub(r"<!--.*?-->", "", (CHECKOUT / "docs/security.md").read_text(), flags=re.DOTALL)
ROWS = re.findall(r"^\| [^|]+ \| `([A-Z_]+)` \| ([^|]*) \| [^|]+ \|$", PAGE, re.MULTILINE)
DEFAULTS = {name.upper(): as_written(field.default) for one in SECTIONS for name, field in one.model_fields.items()}
COMPUTED = {"WEB_UPLOAD_THREADS": "half of `WEB_THREADS`"}
NO_BOUNDS = {"READING_CHUNK_INTERVAL_HOURS", "INGEST_SPOOL", "WEB_BIND", "WEB_PORT", "WEB_PROCESSES"}


def test_each_limit_has_the_default_of_its_setting() -> None:
    assert ROWS
    for name, default in ROWS:
        assert name in DEFAULTS, f"docs/security.md: config/env.py has no {name}"
        assert default == COMPUTED.get(name, DEFAULTS[name]), f"docs/security.md: the default of {name}"


def test_each_limit_of_the_web_and_of_ingest_has_a_row() -> None:
    settings = {name.upper() for section in (Ingest, Web) for name in section.model_fields}
    named = [name for name, _ in ROWS]
    assert sorted(named) == sorted(settings - NO_BOUNDS), "docs/security.md: one row for each setting that is a bound"
