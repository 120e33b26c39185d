"""Tables on narrow terminals: columns are left out in order, and no word is broken."""

import io

import pytest
from rich.console import Console

from poolhouse.display.render import print_status
from poolhouse.display.table import Table
from tests.unit.test_status import status


def drawn(made: Table, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(made)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def example() -> Table:
    made = Table("name", "count#", "state", "comment", shed=("state",))
    made.add_row("worker@box:1", "1,234", "idle in transaction", "some words")
    return made


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (
            60,
            [
                "name          count  state                comment",
                "worker@box:1  1,234  idle in transaction  some words",
            ],
        ),
        (
            42,
            [
                "name          count  state        comment",
                "worker@box:1  1,234  idle in      some",
                "                     transaction  words",
            ],
        ),
        (36, ["name          count  comment", "worker@box:1  1,234  some words", "(too narrow for: state)"]),
        (20, ["name          count", "worker@box:1  1,234", "(too narrow for:", "state, comment)"]),
        (15, ["name", "worker@box:1", "(too narrow", "for: count,", "state, comment)"]),
    ],
)
def test_cells_are_wrapped_before_columns_are_left_out(width: int, expected: list[str]) -> None:
    assert drawn(example(), width) == expected


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_the_detailed_status_fits_without_breaking_words(width: int) -> None:
    wide, narrow = io.StringIO(), io.StringIO()
    print_status(status(), Console(file=wide, width=200), detailed=True)
    print_status(status(), Console(file=narrow, width=width), detailed=True)
    lines = [line for line in narrow.getvalue().splitlines() if "too narrow for:" not in line]
    assert max(map(len, lines)) <= width
    words = {word.rstrip(",") for word in wide.getvalue().split()}
    assert {word.rstrip(",") for word in " ".join(lines).split()} <= words
