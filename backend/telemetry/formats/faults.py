"""Rejected rows and the reasons for which they are rejected."""

from dataclasses import dataclass
from enum import StrEnum

REJECT_MAX_LENGTH = 10_000


class Fault(StrEnum):
    """The reject reasons, by which rejected rows are counted in the database."""

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
    """A cell or a row that cannot be read; the message has the value and what is expected."""

    def __init__(self, fault: Fault, detail: str, column: str = "") -> None:
        super().__init__(detail)
        self.fault = fault
        self.column = column


@dataclass(frozen=True)
class Reject:
    """A row that cannot be loaded."""

    line: int
    """line in the file, counted from 1; in Parquet and Arrow, the row"""
    column: str
    """empty if the whole row is at fault"""
    fault: Fault
    detail: str
    """the value, and what is expected"""
    raw: str
    """the row as it is in the file; the beginning of a very long one"""

    def __post_init__(self) -> None:
        """Shorten long texts, so that the rejected rows do not take more space than their file."""
        for name in ("detail", "raw"):
            if len(text := getattr(self, name)) > REJECT_MAX_LENGTH:
                object.__setattr__(self, name, f"{text[:REJECT_MAX_LENGTH]}…")
