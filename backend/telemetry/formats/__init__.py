"""The file formats that can be loaded: how each is checked, cut into slices, and read."""

from dataclasses import dataclass

from telemetry.formats import arrow, csv, ndjson, parquet
from telemetry.formats.base import Columns, Format, Parsed, Slice, TextFormat
from telemetry.formats.faults import Fault, Reject
from telemetry.formats.source import (
    SPOOL_MARKER,
    BadInput,
    MissingFileError,
    Source,
    Stamp,
    StorageUnavailableError,
    require_mounted,
)
from telemetry.formats.times import TimeFormat

__all__ = [
    "FORMATS",
    "SPOOL_MARKER",
    "BadInput",
    "Columns",
    "Fault",
    "Format",
    "MissingFileError",
    "Parsed",
    "Reject",
    "Slice",
    "Source",
    "Stamp",
    "StorageUnavailableError",
    "TextFormat",
    "TimeFormat",
    "Written",
    "by_name",
    "recognise",
    "require_mounted",
]

FORMATS: tuple[Format, ...] = (csv.FORMAT, ndjson.FORMAT, parquet.FORMAT, arrow.FORMAT)
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True)
class Written:
    """The format and compression of a file."""

    format: Format
    compression: str = ""
    """gzip or zstd, as pyarrow names them; empty if not compressed"""


def by_name(name: str) -> Format:
    """Return the format of a name."""
    return next(known for known in FORMATS if known.name == name)


def recognise(name: str) -> Written:
    """Return the format and compression of a file by the ending of its name.

    Raises:
        BadInput: no format has this ending.

    """
    lowered = name.lower()
    suffix, compression = next((pair for pair in COMPRESSIONS.items() if lowered.endswith(pair[0])), ("", ""))
    for known in FORMATS:
        if lowered.removesuffix(suffix).endswith(known.endings):
            return Written(known, compression)
    endings = ", ".join(ending for known in FORMATS for ending in known.endings)
    raise BadInput(
        name, f"unknown file format; expected a name ending in {endings}, optionally with {' or '.join(COMPRESSIONS)}"
    )
