"""The file formats that can be taken in: how each is checked, cut into slices, and read."""

from pathlib import Path

from telemetry.formats import csv, parquet
from telemetry.formats.base import BadInput, Columns, Format, Parsed, Reject, Slice, TextFormat
from telemetry.formats.times import TimeFormat

__all__ = [
    "BadInput",
    "Columns",
    "Format",
    "Parsed",
    "Reject",
    "Slice",
    "TextFormat",
    "TimeFormat",
    "by_name",
    "by_path",
]

FORMATS: tuple[Format, ...] = (csv.FORMAT, parquet.FORMAT)


def by_name(name: str) -> Format:
    """Give the format of that name."""
    return next(known for known in FORMATS if known.name == name)


def by_path(path: Path) -> Format:
    """Give the format that a file's ending stands for.

    Raises:
        BadInput: no format has that ending.

    """
    for known in FORMATS:
        if path.suffix.lower() in known.endings:
            return known
    endings = ", ".join(ending for known in FORMATS for ending in known.endings)
    raise BadInput(path, f"its ending {path.suffix!r} is no known format; allowed: {endings}")
