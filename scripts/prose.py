"""Refuse the forms of scripts/prose.toml in documents, and in the messages and docstrings of Python code.

`scripts/prose.py PATH…` checks files and folders; `scripts/check` names everything that a user of the project reads.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".py", ".md", ".yml", ".yaml", ".ini", ".conf", ".sql", ".sh", ".html", ".example", ""}
BREAK = r"[\s#]+"  # between words, the ends of lines and comments included
CODE_IN_MARKDOWN = re.compile(r"^ *(```|~~~).*?^ *\1|`[^`\n]*`|\]\([^)\s]*\)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Form:
    """A form that is refused, what to write instead, and examples of both."""

    pattern: str
    write: str
    bad: tuple[str, ...]
    good: tuple[str, ...]

    def found_in(self, text: str) -> Iterator[re.Match[str]]:
        """Return each place where the form is written, across the ends of lines and comments too."""
        return re.finditer(self.pattern.replace(" ", BREAK), text, re.IGNORECASE)


FORMS = tuple(Form(**entry) for entry in tomllib.loads((ROOT / "scripts/prose.toml").read_text())["form"])


def passages(path: Path) -> Iterator[tuple[int, str]]:
    """Return the prose of a file, each piece with its first line."""
    text = path.read_text()
    if path.name == "CHANGELOG.md":  # released entries stay as they are
        text = "\n## ".join(text.split("\n## ")[:2])
    if path.suffix == ".md":
        text = CODE_IN_MARKDOWN.sub(lambda code: "_" + "\n" * code[0].count("\n"), text)
    return _strings(ast.parse(text)) if path.suffix == ".py" else iter([(1, text)])


def _strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Return the strings of more than one word, each f-string as a whole."""
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(p.value) if isinstance(p, ast.Constant) else "_" for p in node.values)
        elif isinstance(node, ast.Constant) and id(node) not in parts and " " in str(node.value):
            yield node.lineno, str(node.value)


def problems(paths: Iterable[Path]) -> Iterator[str]:
    """Return a line for each place where a form is written."""
    for path in paths:
        for first_line, text in passages(path):
            for form in FORMS:
                for match in form.found_in(text):
                    line = first_line + text.count("\n", 0, match.start())
                    yield f"{path}:{line}: '{re.sub(BREAK, ' ', match[0])}' -> write: {form.write}"


def files_of(paths: Iterable[Path]) -> Iterator[Path]:
    """Return the files among the paths and in the folders among them."""
    for path in paths:
        inside = (file for file in sorted(path.rglob("*")) if file.is_file() and file.suffix in SUFFIXES)
        yield from inside if path.is_dir() else [path]


if __name__ == "__main__":
    found = list(problems(files_of(map(Path, sys.argv[1:]))))
    print("\n".join([*found, f"{len(found)} refused forms (see scripts/prose.toml)"]))
    sys.exit(1 if found else 0)
