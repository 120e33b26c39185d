"""The console of commands: colours on terminals only, and no text changed or lost."""

import io

import pytest

from poolhouse.display.console import console_for
from poolhouse.display.table import Table


def printed(*cells: str, encoding: str = "utf-8") -> str:
    out = io.BytesIO()
    console = console_for(io.TextIOWrapper(out, encoding=encoding, write_through=True))
    made = Table("cell")
    for cell in cells:
        made.add_row(cell)
    console.print(made)
    return out.getvalue().decode(encoding)


def test_an_ipv6_address_is_printed_unchanged() -> None:
    assert [line.strip() for line in printed("fd00:a:b:c::5", "2001:db8:cd:100::1").splitlines()[1:]] == [
        "fd00:a:b:c::5",
        "2001:db8:cd:100::1",
    ]


def test_characters_missing_in_the_encoding_become_question_marks() -> None:
    assert printed("– ▁▂", encoding="ascii").split()[1:] == ["?", "??"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "term", "is_terminal"),
    [(Terminal(), "xterm", True), (Terminal(), None, False), (Terminal(), "", False), (io.StringIO(), "xterm", False)],
)
def test_only_a_terminal_with_term_gets_colours(
    out: io.StringIO, term: str | None, is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    console = console_for(out)
    console.print("red", style="red")
    assert console.is_terminal == is_terminal
    assert ("\x1b" in out.getvalue()) == is_terminal
