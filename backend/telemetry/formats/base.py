"""What every format shares: the words for its input, its output and its refusals."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from telemetry.formats.times import TimeFormat

# An entry of the unique index over metric and labels must fit into a third of a page, 2,704 bytes.
LABELS_MAX_BYTES = 2000


class BadInput(Exception):
    """A file, or a part of one, that cannot be loaded; the text names the file, and the line and column if known."""

    def __init__(self, path: Path, problem: str, *, line: int | None = None) -> None:
        super().__init__(f"{path}{f':{line}' if line else ''}: {problem}")


@dataclass(frozen=True)
class TextFormat:
    """How a text format is written."""

    delimiter: str = ","
    decimal: str = "."
    encoding: str = "utf-8"
    """one in which the first 128 characters are those of ASCII, so that lines can be found before they are decoded"""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table make readings: one for each value column of each row."""

    time: str
    labels: tuple[str, ...]
    values: tuple[str, ...]
    null_values: tuple[str, ...] = ("",)
    """texts that stand for an empty cell in a value column of a text format"""
    times: TimeFormat = field(default_factory=TimeFormat)
    text: TextFormat = field(default_factory=TextFormat)

    @property
    def all(self) -> tuple[str, ...]:
        """Every column that is read, in the order of the parsed table."""
        return (self.time, *self.labels, *self.values)


@dataclass(frozen=True)
class Slice:
    """A part of a file that can be read without the rest."""

    row_count: int
    place: dict[str, Any]
    """where it lies, as JSON data; only its own format reads this"""


@dataclass(frozen=True)
class Reject:
    """A row that cannot be loaded."""

    line: int
    """in the file, counted from 1; in Parquet, the row"""
    column: str
    reason: str
    raw: str


@dataclass(frozen=True)
class Parsed:
    """A slice, read.

    `table` has the columns' names in the order of `Columns.all`: the time as timestamp[us, UTC] and the labels as
    string, both without nulls, the values as float64 with nulls for empty cells.
    """

    table: pa.Table
    rejects: list[Reject]


class Format(Protocol):
    """A file format."""

    name: str
    endings: tuple[str, ...]

    def check(self, path: Path, columns: Columns) -> None:
        """Look at the beginning of a file.

        Raises:
            BadInput: the file is not of this format, lacks a column, or none of its first rows can be read.

        """

    def cut(self, path: Path, batch_rows: int, columns: Columns) -> Iterator[Slice]:
        """Cut a file into slices of at most about `batch_rows` rows, in the order of the file."""

    def read(self, path: Path, place: dict[str, Any], columns: Columns) -> Parsed:
        """Read one slice.

        Raises:
            BadInput: the file is not there any more, or is not what it was when it was cut.

        """


def require_columns(path: Path, present: list[str], wanted: tuple[str, ...], *, line: int | None = None) -> None:
    """Refuse a file that lacks a column, or has one of them twice.

    Raises:
        BadInput: names the columns, and those that are there.
    """
    if missing := [name for name in wanted if name not in present]:
        raise BadInput(path, f"no column {', '.join(map(repr, missing))}; its columns: {', '.join(present)}", line=line)
    if twice := [name for name in wanted if present.count(name) > 1]:
        raise BadInput(path, f"column {', '.join(map(repr, twice))} stands in the header more than once", line=line)


def stamp_of(path: Path) -> dict[str, int]:
    """Tell a file from what it becomes when it is changed: its size and its time of change.

    Raises:
        BadInput: there is no such file, it is empty, or it may not be read.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
    except OSError as error:
        raise BadInput(path, (error.strerror or str(error)).lower()) from None
    if status.st_size == 0:
        raise BadInput(path, "the file is empty")
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def require_unchanged(path: Path, stamp: dict[str, int]) -> None:
    """Refuse a file that is not what it was when it was cut.

    Raises:
        BadInput: it is gone, or has changed.
    """
    if (now := stamp_of(path)) != stamp:
        raise BadInput(
            path, f"the file has changed since it was enqueued ({stamp['size']} bytes then, {now['size']} now)"
        )
