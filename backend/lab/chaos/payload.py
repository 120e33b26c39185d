"""Uploads whose rows identify themselves: each has a device of its own, and each row a number in it."""

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
"""the kinds of bad rows: the time and the value that each has"""


@dataclass(frozen=True)
class Upload:
    """A file that a client sends; row N is the reading N of its device, N seconds after the first, unless it is bad."""

    name: str
    """the device of all its rows, and the beginning of the file's name"""
    day: int
    rows: int
    bad: tuple[tuple[int, str], ...]
    """rows that cannot be read, by their numbers, and of which kind each is"""
    format: str
    compression: str
    batch_rows: int
    pause_s: float
    """before it is sent"""
    into_spool: bool = False
    breaks_off_s: float | None = None
    """the client's first attempt ends by itself after so long, without an answer"""

    @property
    def file_name(self) -> str:
        """What the ledger calls it; the compression shows in the name of a file alone."""
        return f"{self.name}.{self.format}"

    @property
    def begin_s(self) -> int:
        """The time of row 0, in seconds since 1970."""
        return BEGIN_S + self.day * DAY_S

    @cached_property
    def good(self) -> frozenset[int]:
        """The numbers of the rows that can be read."""
        return frozenset(range(self.rows)) - {row for row, _ in self.bad}

    @cached_property
    def bad_lines(self) -> dict[int, str]:
        """The lines that must be rejected, by their numbers in the file, and their texts."""
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
        """Return the file, compressed as it is sent."""
        header = ["time,device,value"] if self.format == "csv" else []
        text = "".join(f"{line}\n" for line in (*header, *map(self._line, range(self.rows)))).encode()
        match self.compression:
            case "gzip":
                return gzip.compress(text, mtime=0)
            case "zstd":
                return bytes(pa.compress(text, "zstd", asbytes=True))
            case _:
                return text
