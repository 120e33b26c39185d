"""What can be wrong with a row."""

from dataclasses import dataclass
from enum import StrEnum

REJECT_MAX_LENGTH = 10_000


class Fault(StrEnum):
    """The reasons for which rows are rejected, and by which they are counted."""

    BROKEN_RECORD = "broken record"
    LARGE_RECORD = "record too large"
    RAGGED_ROW = "ragged row"
    UNREADABLE_TIME = "unreadable time"
    TIME_WITHOUT_ZONE = "time without zone"
    AMBIGUOUS_TIME = "ambiguous time"
    TIME_OUT_OF_RANGE = "time out of range"
    MISSING_LABEL = "missing label"
    UNREADABLE_LABEL = "unreadable label"
    LONG_LABELS = "labels too long"
    UNREADABLE_NUMBER = "unreadable number"
    NUMBER_OUT_OF_RANGE = "number out of range"


class FaultError(ValueError):
    """A cell or a row with a fault; the text says which value, and what is allowed."""

    def __init__(self, fault: Fault, detail: str, column: str = "") -> None:
        super().__init__(detail)
        self.fault = fault
        self.column = column


@dataclass(frozen=True)
class Reject:
    """A row that cannot be loaded."""

    line: int
    """in the file, counted from 1; in Parquet and Arrow, the row"""
    column: str
    """empty if the fault is the row's"""
    fault: Fault
    detail: str
    """the value, and what is allowed"""
    raw: str
    """the row as it stands in the file; of one that is very long, the beginning"""

    def __post_init__(self) -> None:
        """Shorten what would make the rejects larger than their file."""
        for name in ("detail", "raw"):
            if len(text := getattr(self, name)) > REJECT_MAX_LENGTH:
                object.__setattr__(self, name, f"{text[:REJECT_MAX_LENGTH]}…")
