"""The guard against forms that scripts/prose.toml refuses."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from config.env import CHECKOUT
from scripts.prose import FORMS, problems

BAD = [(form.write, example) for form in FORMS for example in form.bad]
GOOD = [example for form in FORMS for example in form.good]


def found(folder: Path, name: str, text: str) -> list[str]:
    """Return what is found in a file, without the folder's name."""
    path = folder / name
    path.write_text(text)
    return [problem.removeprefix(f"{folder}/") for problem in problems([path])]


@pytest.mark.parametrize(("write", "example"), BAD)
def test_each_form_is_found_and_the_report_says_what_to_write(tmp_path: Path, write: str, example: str) -> None:
    (problem,) = found(tmp_path, "page.md", f"# Title\n\nSome text: {example}.\n")
    assert re.match(r"page\.md:[34]: '", problem)
    assert problem.endswith(f"' -> write: {write}")


@pytest.mark.parametrize("example", GOOD)
def test_plain_text_passes(tmp_path: Path, example: str) -> None:
    assert found(tmp_path, "page.md", f"Some text: {example}.\n") == []


def test_python_is_checked_in_its_messages_and_docstrings_and_not_in_its_names(tmp_path: Path) -> None:
    code = '''"""A module.

Say whether it runs.
"""
borrow = {"lent": "borrow"}  # lend
raise ValueError(f"{borrow} is no {borrow}: it is " "lent")
'''
    assert found(tmp_path, "module.py", code) == [
        "module.py:3: 'Say whether' -> write: Return True if …, Return … (docstring); Set … (message)",
        "module.py:6: 'is no _' -> write: expected …, got … (or: is not …)",
        "module.py:6: 'lent' -> write: check out, checkout, checked out, holder",
    ]


def test_code_in_markdown_and_published_changes_are_left_out(tmp_path: Path) -> None:
    assert found(tmp_path, "page.md", "Text.\n\n```\nlend\n```\n\nNot `lend`, but\nlend") == [
        "page.md:8: 'lend' -> write: check out, checkout, checked out, holder"
    ]
    changes = "# Changelog\n\n## Unreleased\n\nlend\n\n## 0.1\n\nborrow\n"
    assert [problem.split(" ")[0] for problem in found(tmp_path, "CHANGELOG.md", changes)] == ["CHANGELOG.md:5:"]


def test_a_form_is_found_across_the_lines_of_a_comment(tmp_path: Path) -> None:
    (problem,) = found(tmp_path, "config.yml", "# what a process is\n# told\nkey: value\n")
    assert problem.startswith("config.yml:1: 'is told' -> write: ")


def test_the_exit_status_is_1_if_a_form_is_found(tmp_path: Path) -> None:
    def check() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "scripts/prose.py", tmp_path], cwd=CHECKOUT, capture_output=True, text=True
        )

    (tmp_path / "picture.svg").write_text("lend")
    (tmp_path / "page.md").write_text("A connection is checked out.\n")
    assert check().returncode == 0
    (tmp_path / "page.md").write_text("A connection is lent.\n")
    answer = check()
    assert answer.returncode == 1
    assert "page.md:1: 'lent'" in answer.stdout
    assert "1 refused forms" in answer.stdout
