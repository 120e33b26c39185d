"""Parsing rows one by one in Python, which is slow, but rejects single rows and says why."""

import math
import re
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from telemetry.formats.base import LABELS_MAX_BYTES, Columns, Parsed
from telemetry.formats.faults import REJECT_MAX_LENGTH, Fault, FaultError, Reject
from telemetry.formats.quoting import BLANKS
from telemetry.formats.times import TIME_TYPE

# A time, labels, values, in the order of Columns.all.
Row = tuple[Any, ...]
# Python's objects take many times the memory of their text.
ROWS_AT_ONCE = 5_000
SHOWN_LENGTH = REJECT_MAX_LENGTH + 1
"""characters of a text that are kept, one more than the limit, so that a cut text is recognised"""


class Gathered:
    """Collects parsed and rejected rows until there are enough for a piece."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._clear()

    def _clear(self) -> None:
        self._rows: list[Row] = []
        self._cut_off_ns: list[int] = []
        self._rejects: list[Reject] = []

    def add(self, cells: dict[str, str | None]) -> None:
        """Parse and add a row of texts; None means that the record has no such cell.

        Raises:
            FaultError: a cell cannot be read; it has the first such column.
        """
        self._rows.append(make_row(cells, self._columns))
        self._cut_off_ns.append(self._columns.times.cut_off_ns_of(cells[self._columns.time] or ""))

    def reject(self, line: int, error: FaultError, record: bytes) -> None:
        """Add a rejected row."""
        # Only the beginning of a long record is shown; a character has at most four bytes.
        raw = record.rstrip(b"\r\n")[: 4 * SHOWN_LENGTH].decode(self._columns.text.encoding, "surrogateescape")
        self._rejects.append(Reject(line, error.column, error.fault, str(error), printable(raw)))

    @property
    def is_full(self) -> bool:
        """True if there are enough rows for a piece."""
        return len(self._rows) + len(self._rejects) >= ROWS_AT_ONCE

    def take(self) -> Parsed:
        """Return the collected rows as a piece, and start the next one."""
        cut_off_ns = np.array(self._cut_off_ns, np.int16) if any(self._cut_off_ns) else None
        parsed = Parsed(table_of(self._rows, self._columns), self._rejects, cut_off_ns)
        self._clear()
        return parsed


def make_row(cells: dict[str, str | None], columns: Columns) -> Row:
    """Return a row parsed from texts; None means that the record has no such cell.

    Raises:
        FaultError: a cell cannot be read; it has the first such column.
    """
    time = _time(columns.time, cells[columns.time], columns)
    labels = [_label(name, cells[name], columns.text.encoding) for name in columns.labels]
    if (size := sum(len(label.encode()) for label in labels)) > LABELS_MAX_BYTES:
        detail = f"the labels have {size:,} bytes in total, the limit is {LABELS_MAX_BYTES:,}"
        raise FaultError(Fault.LONG_LABELS, detail, columns.labels[0])
    values = [_value(name, cells[name], columns) for name in columns.values]
    return (time, *labels, *values)


def _time(column: str, text: str | None, columns: Columns) -> datetime:
    try:
        return columns.times.from_text(printable((text or "").strip(BLANKS)))
    except FaultError as error:
        error.column = column
        raise


def _label(column: str, text: str | None, encoding: str) -> str:
    if not text:
        raise FaultError(Fault.MISSING_LABEL, "the label is missing", column)
    if "\0" in text or not _is_unicode(text):
        detail = f"expected {encoding.upper()} text without NUL characters, got {printable(text)!r}"
        raise FaultError(Fault.UNREADABLE_LABEL, detail, column)
    return text


def _value(column: str, text: str | None, columns: Columns) -> float | None:
    if text is None or (text := text.strip(BLANKS)) in columns.empty_texts:
        return None
    decimal = columns.text.decimal
    try:
        if (
            "_" in text or not text.isascii() or text != text.strip()
        ):  # Python accepts these as numbers, databases do not
            raise ValueError
        if decimal != "." and "." in text:
            raise ValueError
        value = float(text.replace(decimal, "."))
    except ValueError:
        raise FaultError(Fault.UNREADABLE_NUMBER, f"expected a number, got {printable(text)!r}", column) from None
    if math.isfinite(value):
        return value
    if math.isinf(value) and "inf" not in text.lower():
        detail = f"{printable(text)!r} is out of range for type double precision"
        raise FaultError(Fault.NUMBER_OUT_OF_RANGE, detail, column)
    return value if columns.keep_nan else None


def _is_unicode(text: str) -> bool:
    return SURROGATES.search(text) is None


# Halves of surrogate pairs, without those in which "surrogateescape" stores bytes that are not UTF-8.
LONE_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
SURROGATES = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """Return the beginning of a text, with NUL and bytes that are not UTF-8 as escape sequences."""
    text = LONE_SURROGATES.sub(lambda half: f"\\u{ord(half[0]):04x}", text[:SHOWN_LENGTH])
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def table_of(rows: list[Row], columns: Columns) -> pa.Table:
    """Return a table of parsed rows."""
    types = [TIME_TYPE, *[pa.string()] * len(columns.labels), *[pa.float64()] * len(columns.values)]
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(types)
    arrays = [pa.array(column, kind) for column, kind in zip(cells, types, strict=True)]
    return pa.table(dict(zip(columns.all, arrays, strict=True)))
