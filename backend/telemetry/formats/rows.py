"""Rows read one at a time, in Python: slow, but a row with a fault is told from the others, and so is the fault."""

import math
import re
from datetime import datetime
from typing import Any

import pyarrow as pa

from telemetry.formats.base import LABELS_MAX_BYTES, Columns
from telemetry.formats.faults import Fault, FaultError
from telemetry.formats.times import TIME_TYPE

# A time, labels, values, in the order of Columns.all.
Row = tuple[Any, ...]


def make_row(cells: dict[str, str | None], columns: Columns) -> Row:
    """Make a row of texts; None is a cell that the record leaves out.

    Raises:
        FaultError: names the first column with a fault.
    """
    time = _time(columns.time, cells[columns.time], columns)
    labels = [_label(name, cells[name]) for name in columns.labels]
    if (size := sum(len(label.encode()) for label in labels)) > LABELS_MAX_BYTES:
        detail = f"its labels have {size} bytes; allowed: {LABELS_MAX_BYTES} together"
        raise FaultError(Fault.LONG_LABELS, detail, columns.labels[0])
    values = [_value(name, cells[name], columns) for name in columns.values]
    return (time, *labels, *values)


def _time(column: str, text: str | None, columns: Columns) -> datetime:
    try:
        return columns.times.from_text(printable(text or ""))
    except FaultError as error:
        error.column = column
        raise


def _label(column: str, text: str | None) -> str:
    if not text:
        raise FaultError(Fault.MISSING_LABEL, "the label is missing", column)
    if "\0" in text or not _is_unicode(text):
        detail = f"{printable(text)!r} is not text in UTF-8, or has a NUL in it"
        raise FaultError(Fault.UNREADABLE_LABEL, detail, column)
    return text


def _value(column: str, text: str | None, columns: Columns) -> float | None:
    if text is None or text in columns.null_values:
        return None
    decimal = columns.text.decimal
    try:
        if "_" in text or not text.isascii():  # Python reads these as numbers, no database does
            raise ValueError
        if decimal != "." and "." in text:
            raise ValueError
        value = float(text.replace(decimal, "."))
    except ValueError:
        raise FaultError(Fault.UNREADABLE_NUMBER, f"{printable(text)!r} is no number", column) from None
    if math.isinf(value) and "inf" not in text.lower():
        raise FaultError(Fault.NUMBER_OUT_OF_RANGE, f"{text!r} is out of the range of a double", column)
    return value


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


# Halves of pairs, but for those as which "surrogateescape" keeps bytes that are not UTF-8.
LONE_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def printable(text: str) -> str:
    """Write bytes that are not UTF-8, and NUL, as escapes, so that every reader can take the text."""
    text = LONE_SURROGATES.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def table_of(rows: list[Row], columns: Columns) -> pa.Table:
    """Make a parsed table of rows."""
    types = [TIME_TYPE, *[pa.string()] * len(columns.labels), *[pa.float64()] * len(columns.values)]
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(types)
    arrays = [pa.array(column, kind) for column, kind in zip(cells, types, strict=True)]
    return pa.table(dict(zip(columns.all, arrays, strict=True)))
