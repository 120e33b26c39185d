"""Uploads whose rows identify themselves: each upload has its own device, and each row its own number."""

import gzip
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import pyarrow as pa

DAY_S = 86_400
BEGIN_S = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
COLUMNS = {"time": "time", "labels": "device", "values": "value"}
ENDINGS = {"": "", "gzip": ".gz", "zstd": ".zst"}
CONTENT_TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson"}
BAD_CELLS = {"time": ("soon", "1"), "number": ("2024-01-01T00:00:00Z", "many")}
"""the kinds of rows that must be rejected: their time and value"""


@dataclass(frozen=True)
class Upload:
    """A file that a client sends. Row N is reading N of its device, N seconds after the first, unless it is bad."""

    name: str
    """the device of all its rows, and the beginning of the file's name"""
    day: int
    rows: int
    bad: tuple[tuple[int, str], ...]
    """the numbers and kinds of the rows that must be rejected"""
    format: str
    compression: str
    batch_rows: int
    pause_s: float
    """the pause before it is sent"""
    into_spool: bool = False
    breaks_off_s: float | None = None
    """the client aborts its first attempt after this time"""

    @property
    def file_name(self) -> str:
        """Its name in the ledger, without the extension of the compression."""
        return f"{self.name}.{self.format}"

    @property
    def begin_s(self) -> int:
        """The time of row 0, in seconds since 1970."""
        return BEGIN_S + self.day * DAY_S

    @cached_property
    def good(self) -> frozenset[int]:
        """The numbers of the rows that can be loaded."""
        return frozenset(range(self.rows)) - {row for row, _ in self.bad}

    @cached_property
    def bad_lines(self) -> dict[int, str]:
        """The texts of the lines that must be rejected, by line number."""
        first_line = 2 if self.format == "csv" else 1
        return {first_line + row: self._line(row) for row, _ in self.bad}

    @cached_property
    def _bad_kinds(self) -> dict[int, str]:
        return dict(self.bad)

    def _line(self, row: int) -> str:
        kind = self._bad_kinds.get(row)
        time, value = (
            BAD_CELLS[kind] if kind else (f"{datetime.fromtimestamp(self.begin_s + row, UTC):%FT%TZ}", f"{row}")
        )
        if self.format == "csv":
            return f"{time},{self.name},{value}"
        return json.dumps({"time": time, "device": self.name, "value": value if kind else row})

    def content(self) -> bytes:
        """Return the content of the file as it is sent, compressed."""
        header = ["time,device,value"] if self.format == "csv" else []
        text = "".join(f"{line}\n" for line in (*header, *map(self._line, range(self.rows)))).encode()
        match self.compression:
            case "gzip":
                return gzip.compress(text, mtime=0)
            case "zstd":
                return bytes(pa.compress(text, "zstd", asbytes=True))
            case _:
                return text
