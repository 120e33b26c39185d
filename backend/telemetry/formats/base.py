"""The interface of all formats, its input and output, and checks that several formats share."""

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
# Large enough for columnar parsing to be fast, small enough that the server is busy with one while the next is parsed.
PIECE_BYTES = 2 << 20
# The usual spellings; the rare others that Python's float() accepts are treated in the same way.
NOT_FINITE = tuple(
    sign + text
    for sign in ("", "+", "-")
    for word in ("nan", "inf", "infinity")
    for text in {word, word.upper(), word.capitalize(), word.replace("nan", "NaN")}
)


@dataclass(frozen=True)
class TextFormat:
    """The delimiter, decimal mark, encoding and escape character of a text format."""

    delimiter: str = ","
    decimal: str = "."
    encoding: str = "utf-8"
    """an encoding that extends ASCII, so that lines can be found before they are decoded"""
    escape: str = ""
    """the escape character; if empty, a quote within quotes is doubled"""


@dataclass(frozen=True)
class Columns:
    """The columns of a table that make readings, one for each value column of each row, and how they are read."""

    time: str
    labels: tuple[str, ...]
    values: tuple[str, ...]
    null_values: tuple[str, ...] = ("",)
    """texts that mean an empty cell in a value column of a text format"""
    times: TimeFormat = field(default_factory=TimeFormat)
    text: TextFormat = field(default_factory=TextFormat)
    keep_nan: bool = False
    """True if NaN and infinity are values; otherwise they are empty cells"""

    def __post_init__(self) -> None:
        """Check that columns and characters do not contradict each other.

        Raises:
            ValueError: a column is named more than once, or one character has two meanings.
        """
        if len(set(self.all)) != len(self.all):
            raise ValueError(f"expected different columns for the time, labels and values, got {', '.join(self.all)}")
        if self.text.delimiter == self.text.decimal:
            raise ValueError(f"the delimiter and the decimal mark must differ, got {self.text.decimal!r} for both")
        if self.text.escape and self.text.escape in (self.text.delimiter, self.text.decimal):
            raise ValueError(
                f"the escape character must differ from the delimiter and the decimal mark, got {self.text.escape!r}"
            )

    @property
    def all(self) -> tuple[str, ...]:
        """All columns that are read, in the order of the parsed table."""
        return (self.time, *self.labels, *self.values)

    @cached_property
    def empty_texts(self) -> frozenset[str]:
        """The texts, without blanks around them, that mean an empty cell of a text format."""
        empty = {text.strip(BLANKS) for text in self.null_values}
        return frozenset(empty if self.keep_nan else empty.union(NOT_FINITE))


@dataclass(frozen=True)
class Slice:
    """A part of a file that can be read without the rest."""

    row_count: int
    place: dict[str, Any]
    """its position in the file, as JSON data that depends on the format"""


@dataclass(frozen=True)
class Parsed:
    """A parsed piece of a slice.

    `table` has the columns in the order of `Columns.all`: the time as timestamp[us, UTC] and the labels as strings,
    both without nulls, and the values as float64 with nulls for empty cells.
    """

    table: pa.Table
    rejects: list[Reject]
    cut_off_ns: np.ndarray | None = None
    """the nanoseconds of each time that the table leaves out; None if there are none"""

    def where(self, mask: np.ndarray) -> "Parsed":
        """Return the rows of the table for which the mask is true, without rejected rows."""
        cut_off_ns = None if self.cut_off_ns is None else self.cut_off_ns[mask]
        return Parsed(self.table.filter(pa.array(mask)), [], cut_off_ns)


class Format(Protocol):
    """A file format."""

    name: str
    endings: tuple[str, ...]

    def check(self, source: Source, columns: Columns) -> None:
        """Check the beginning of a file.

        Raises:
            BadInput: the file is not of this format, lacks a column, or none of its first rows can be read.

        """

    def cut(self, source: Source, batch_rows: int, columns: Columns) -> Iterator[Slice]:
        """Yield slices of about `batch_rows` rows at most, in the order of the file."""

    def read(self, source: Source, place: dict[str, Any], columns: Columns) -> Iterator[Parsed]:
        """Yield a slice in pieces, so that the first can be loaded before the last is parsed.

        Raises:
            BadInput: the slice cannot be read.

        """

    def sample(self, source: Source, part: Slice, columns: Columns, row_limit: int) -> Iterator[Parsed]:
        """Yield the first rows of a slice, about `row_limit` at most.

        Raises:
            BadInput: the rows cannot be read.
        """


def without_nan(column: pa.ChunkedArray, columns: Columns) -> pa.ChunkedArray:
    """Return a column of floats with nulls for NaN and infinity, unless `keep_nan` is set."""
    if columns.keep_nan or pc.all(pc.is_finite(column)).as_py() is not False:
        return column
    return pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))


def is_plain(table: pa.Table, columns: Columns) -> bool:
    """Return True if all labels are present and short enough, and all numbers are finite."""
    label_bytes = [pc.binary_length(table[name]) for name in columns.labels]
    return (
        all(lengths.null_count == 0 and pc.min(lengths).as_py() > 0 for lengths in label_bytes)
        and sum(pc.max(lengths).as_py() for lengths in label_bytes) <= LABELS_MAX_BYTES
        and all(pc.all(pc.is_finite(table[name])).as_py() is not False for name in columns.values)
    )


def require_columns(source: Source, present: list[str], wanted: tuple[str, ...], *, line: int | None = None) -> None:
    """Check that a file has each of the columns once.

    Raises:
        BadInput: a column is missing, or occurs more than once.
    """
    if missing := [name for name in wanted if name not in present]:
        columns = ", ".join(present)
        raise BadInput(
            source, f"missing column {', '.join(map(repr, missing))}; the file has the columns {columns}", line=line
        )
    if twice := [name for name in wanted if present.count(name) > 1]:
        raise BadInput(source, f"column {', '.join(map(repr, twice))} occurs more than once", line=line)


def require_default_text(source: Source, columns: Columns) -> None:
    """Refuse options of text formats in another format, instead of ignoring them.

    Raises:
        BadInput: an option is set.
    """
    if columns.text != TextFormat():
        raise BadInput(source, "the options delimiter, decimal, escape and encoding are allowed for CSV files only")


def require_some_row(source: Source, sample: Iterable[Parsed]) -> None:
    """Refuse a file if all rows at its beginning are rejected.

    Raises:
        BadInput: the first rejected row.
    """
    first: Reject | None = None
    for parsed in sample:
        if parsed.table.num_rows:
            return
        first = first or next(iter(parsed.rejects), None)
    if first:
        column = f"column {first.column!r}: " if first.column else ""
        raise BadInput(source, f"{column}{first.detail} (none of the first rows can be read)", line=first.line)
