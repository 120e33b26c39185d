"""What every format shares: the words for its input, its output and its refusals."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from telemetry.formats.faults import Reject
from telemetry.formats.quoting import BLANKS
from telemetry.formats.source import BadInput, Source
from telemetry.formats.times import TimeFormat

# An entry of the unique index over metric and labels must fit into a third of a page, 2,704 bytes.
LABELS_MAX_BYTES = 2000
# Many enough that columns pay, few enough that the server has work in the socket's buffer while the next are parsed.
PIECE_BYTES = 2 << 20
# As people and programs write them; whatever else Python's float() takes for one is the same, and seldom.
NOT_FINITE = tuple(
    sign + text
    for sign in ("", "+", "-")
    for word in ("nan", "inf", "infinity")
    for text in {word, word.upper(), word.capitalize(), word.replace("nan", "NaN")}
)


@dataclass(frozen=True)
class TextFormat:
    """How a text format is written."""

    delimiter: str = ","
    decimal: str = "."
    encoding: str = "utf-8"
    """one in which the first 128 characters are those of ASCII, so that lines can be found before they are decoded"""
    escape: str = ""
    """the character that makes the next one stand for itself; empty: a quote within quotes is doubled"""


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
    keep_nan: bool = False
    """whether NaN and infinity are values; otherwise they are empty cells"""

    def __post_init__(self) -> None:
        """Refuse columns and marks that contradict each other.

        Raises:
            ValueError: a column is named twice, or one character is to mean two things.
        """
        if len(set(self.all)) != len(self.all):
            raise ValueError(f"a column is named twice: {' '.join(self.all)}")
        if self.text.delimiter == self.text.decimal:
            raise ValueError(f"the delimiter and the decimal mark are both {self.text.decimal!r}")
        if self.text.escape and self.text.escape in (self.text.delimiter, self.text.decimal):
            raise ValueError(f"the escape character is also the delimiter or the decimal mark: {self.text.escape!r}")

    @property
    def all(self) -> tuple[str, ...]:
        """Every column that is read, in the order of the parsed table."""
        return (self.time, *self.labels, *self.values)

    @cached_property
    def empty_texts(self) -> frozenset[str]:
        """What an empty cell of a text format may hold, without the blanks around it."""
        empty = {text.strip(BLANKS) for text in self.null_values}
        return frozenset(empty if self.keep_nan else empty.union(NOT_FINITE))


@dataclass(frozen=True)
class Slice:
    """A part of a file that can be read without the rest."""

    row_count: int
    place: dict[str, Any]
    """where it lies, as JSON data; only its own format reads this"""


@dataclass(frozen=True)
class Parsed:
    """A piece of a slice, read.

    `table` has the columns' names in the order of `Columns.all`: the time as timestamp[us, UTC] and the labels as
    string, both without nulls, the values as float64 with nulls for empty cells.
    """

    table: pa.Table
    rejects: list[Reject]
    cut_off_ns: np.ndarray | None = None
    """what each time had below a microsecond, which the table leaves out; None: nothing"""

    def where(self, mask: np.ndarray) -> "Parsed":
        """Return those rows of the table for which the mask is true, without the rejects."""
        cut_off_ns = None if self.cut_off_ns is None else self.cut_off_ns[mask]
        return Parsed(self.table.filter(pa.array(mask)), [], cut_off_ns)


class Format(Protocol):
    """A file format."""

    name: str
    endings: tuple[str, ...]

    def check(self, source: Source, columns: Columns) -> None:
        """Look at the beginning of a file.

        Raises:
            BadInput: the file is not of this format, lacks a column, or none of its first rows can be read.

        """

    def cut(self, source: Source, batch_rows: int, columns: Columns) -> Iterator[Slice]:
        """Cut a file into slices of at most about `batch_rows` rows, in the order of the file."""

    def read(self, source: Source, place: dict[str, Any], columns: Columns) -> Iterator[Parsed]:
        """Read one slice, in pieces: the first can be loaded before the last is parsed.

        Raises:
            BadInput: it cannot be read.

        """

    def sample(self, source: Source, part: Slice, columns: Columns, row_limit: int) -> Iterator[Parsed]:
        """Read the first rows of a slice, about so many at most.

        Raises:
            BadInput: they cannot be read.
        """


def without_nan(column: pa.ChunkedArray, columns: Columns) -> pa.ChunkedArray:
    """Make NaN and infinity empty in a column of floats, unless they are to be kept."""
    if columns.keep_nan or pc.all(pc.is_finite(column)).as_py() is not False:
        return column
    return pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))


def is_plain(table: pa.Table, columns: Columns) -> bool:
    """Return True if no label and no number needs a closer look: labels present and short, numbers finite."""
    label_bytes = [pc.binary_length(table[name]) for name in columns.labels]
    return (
        all(lengths.null_count == 0 and pc.min(lengths).as_py() > 0 for lengths in label_bytes)
        and sum(pc.max(lengths).as_py() for lengths in label_bytes) <= LABELS_MAX_BYTES
        and all(pc.all(pc.is_finite(table[name])).as_py() is not False for name in columns.values)
    )


def require_columns(source: Source, present: list[str], wanted: tuple[str, ...], *, line: int | None = None) -> None:
    """Refuse a file that lacks a column, or has one of them twice.

    Raises:
        BadInput: names the columns, and those that are there.
    """
    if missing := [name for name in wanted if name not in present]:
        columns = ", ".join(present)
        raise BadInput(source, f"no column {', '.join(map(repr, missing))}; its columns: {columns}", line=line)
    if twice := [name for name in wanted if present.count(name) > 1]:
        raise BadInput(source, f"column {', '.join(map(repr, twice))} stands in the header more than once", line=line)


def require_default_text(source: Source, columns: Columns) -> None:
    """Refuse options that mean nothing in this format, instead of ignoring them.

    Raises:
        BadInput: one of them is set.
    """
    if columns.text != TextFormat():
        raise BadInput(
            source, "a delimiter, a decimal mark, an escape character and an encoding can be given for CSV alone"
        )


def require_some_row(source: Source, sample: Iterable[Parsed]) -> None:
    """Refuse a file whose beginning holds nothing but rejects.

    Raises:
        BadInput: names the first of them.
    """
    first: Reject | None = None
    for parsed in sample:
        if parsed.table.num_rows:
            return
        first = first or next(iter(parsed.rejects), None)
    if first:
        column = f"column {first.column!r}: " if first.column else ""
        raise BadInput(source, f"{column}{first.detail} (and none of the rows after it can be read)", line=first.line)
