"""A comparison of strategies as a self-contained HTML page, and as Markdown with SVG files."""

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from django.template import Context, Engine
from django.utils.safestring import SafeString, mark_safe

from config.env import CHECKOUT
from lab import pictures
from lab.comparison import Comparison
from lab.figures import Figures, figures
from lab.plans import EXHAUSTION, QUESTION
from lab.summary import within
from lab.verdicts import RULE, Verdict

CODE = re.compile("`([^`]+)`")
TEMPLATES = Engine(dirs=[str(CHECKOUT / "backend/lab/templates/lab")])

Pictures = Mapping[str, SafeString]
"""SVG by the name of its file"""


@dataclass(frozen=True)
class Section:
    """The part of the report on one setting."""

    name: str
    title: str
    verdict: str
    pictures: Pictures
    figures: Figures

    @property
    def verdict_html(self) -> SafeString:
        """The verdict with its names set as code."""
        return mark_safe(CODE.sub(r"<code>\1</code>", escape(self.verdict)))  # noqa: S308 - escaped


def write_report(comparison: Comparison, folder: Path, journal: Path, stem: str = "strategies") -> None:
    """Write an HTML page, Markdown, charts and the compressed journal.

    Args:
        comparison: what to report.
        folder: where to write; it is created if missing.
        journal: the raw data; compressed if its name ends in .gz.
        stem: the beginning of all file names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _compress(journal, folder / f"{stem}.jsonl.gz")
    sections = [_section(comparison, verdict, stem) for verdict in comparison.verdicts]
    past_the_limit = _past_the_limit(comparison, stem)
    for drawn in (past_the_limit, *(section.pictures for section in sections)):
        for name, svg in drawn.items():
            (folder / name).write_text(svg)
    context = _introduction(comparison) | {"stem": stem, "sections": sections, "past_the_limit": past_the_limit}
    for ending, is_markup in (("html", True), ("md", False)):
        page = TEMPLATES.get_template(f"strategies.{ending}").render(Context(context, autoescape=is_markup))
        (folder / f"{stem}.{ending}").write_text(page)


def _compress(journal: Path, raw: Path) -> None:
    """Copy a journal compressed; the same journal gives the same bytes."""
    text = journal.read_bytes()
    raw.write_bytes(text if journal.suffix == ".gz" else gzip.compress(text, mtime=0))


def _section(comparison: Comparison, verdict: Verdict, stem: str) -> Section:
    setting, rows = verdict.setting, within(verdict.setting, comparison.rows)
    name = f"{setting.model}-{setting.workload}"
    # If only the headline was measured, its chart has the report's name.
    begin = stem if comparison.rows == comparison.headline else f"{stem}-{name}"
    drawn = _files(begin, pictures.of_setting(rows))
    return Section(name, comparison.title(setting), verdict.sentence, drawn, figures(rows))


def _past_the_limit(comparison: Comparison, stem: str) -> Pictures:
    rows = within(EXHAUSTION, comparison.rows)
    if not rows:
        return {}
    room = comparison.circumstances["server_room"]
    return _files(stem, {"exhaustion": pictures.exhaustion(rows), "connections": pictures.connections(rows, room)})


def _files(begin: str, drawn: Mapping[str, str]) -> Pictures:
    """Return charts by file name; a chart without a name is the only one of its setting."""
    return {"-".join(filter(None, (begin, name))) + ".svg": mark_safe(svg) for name, svg in drawn.items()}  # noqa: S308 - our own SVG


def _introduction(comparison: Comparison) -> dict[str, Any]:
    """Return the variables of the templates that concern the whole comparison."""
    found, rounds = comparison.circumstances, [len(row.turns) for row in comparison.rows]
    least, most = min(rounds), max(rounds)
    return {
        "question": QUESTION,
        "rule": RULE,
        "circumstances": found,
        "versions": ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
        "rounds": f"{most} round{'s' * (most > 1)}" if least == most else f"{least}–{most} rounds",
    }
