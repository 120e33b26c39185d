"""Conversion of the times in files (ISO 8601 with or without a time zone, numbers since 1970) to those of readings."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from telemetry.formats.faults import Fault, FaultError

TIME_TYPE = pa.timestamp("us", tz="UTC")
# The range of Python's datetime; PostgreSQL's is larger, but drivers could not read such times.
EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
NS_PER_US = 1_000
BELOW_MICROSECONDS = re.compile(r"[.,]\d{6}(\d{1,3})")
EXAMPLE = "2013-01-31T06:00:00Z"


@dataclass(frozen=True)
class TimeFormat:
    """The format of the times in a file."""

    unit: str = "iso"
    """iso; or s, ms, us or ns for integers in this unit since 1970"""
    timezone: str = ""
    """IANA name of the time zone of ISO times without one; if empty, such times are rejected"""

    @cached_property
    def zone(self) -> ZoneInfo | None:
        """The time zone of times without one."""
        return ZoneInfo(self.timezone) if self.timezone else None

    @property
    def column_types(self) -> tuple[pa.DataType, ...]:
        """The types as which Arrow may read the column, in order of increasing resolution."""
        if self.unit != "iso":
            return (pa.int64(),)
        zone = None if self.timezone else "UTC"
        return (pa.timestamp("us", zone), pa.timestamp("ns", zone))

    def from_column(self, column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """Convert a column of integers or timestamps.

        Returns:
            The times as TIME_TYPE, and for each row True if it is valid: not null, in the years 1 to 9999, and not in
            an hour that a clock change skips or repeats.
        """
        if column.type == pa.uint64():
            column = pc.if_else(
                pc.less_equal(column, pa.scalar(2**63 - 1, pa.uint64())), column, pa.scalar(None, pa.uint64())
            )
        if pa.types.is_integer(column.type):
            column = column.cast(pa.int64()).cast(pa.timestamp(self.unit, tz="UTC"))
        elif (cut_off_ns := self.cut_off_ns(column)) is not None:  # otherwise times before 1970 would be rounded up
            column = pc.subtract(column, pa.array(cut_off_ns.astype(np.int64)).cast(pa.duration("ns")))
        certain = pc.is_valid(column)
        if column.type.tz is None:
            earliest, latest = (
                pc.assume_timezone(column, self.timezone, ambiguous=which, nonexistent=which)
                for which in ("earliest", "latest")
            )
            certain, column = pc.equal(earliest, latest), earliest
        good = pc.fill_null(pc.and_kleene(certain, _in_range(column)), False)
        if not pc.all(good).as_py():
            column = pc.if_else(good, column, pa.scalar(None, column.type))
        return column.cast(TIME_TYPE, safe=False), good

    def cut_off_ns(self, column: pa.ChunkedArray) -> np.ndarray | None:
        """Return the nanoseconds that `from_column` cuts off from each time, or None if it cuts off nothing."""
        kind = column.type
        if (kind.unit if pa.types.is_timestamp(kind) else self.unit) != "ns":
            return None
        ns = pc.fill_null(column.cast(pa.int64(), safe=False), 0).to_numpy()
        cut_off = ns % NS_PER_US if pa.types.is_timestamp(kind) else np.fmod(ns, NS_PER_US)
        return cut_off.astype(np.int16) if cut_off.any() else None

    def cut_off_ns_of(self, text: str) -> int:
        """Return the nanoseconds that `from_text` cuts off."""
        if self.unit == "iso":
            found = BELOW_MICROSECONDS.search(text)
            return int(found[1].ljust(3, "0")) if found else 0
        number = _whole_number(text) if self.unit == "ns" else None
        return abs(number) % NS_PER_US * (1 if number > 0 else -1) if number else 0

    def from_text(self, text: str) -> datetime:
        """Return the time in a cell.

        Raises:
            FaultError: it is not a time, is out of range, or is ambiguous.
        """
        return self._from_iso(text) if self.unit == "iso" else self._from_number(text)

    def _from_iso(self, text: str) -> datetime:
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise FaultError(
                Fault.UNREADABLE_TIME, f"expected a time such as {EXAMPLE} (ISO 8601), got {text!r}"
            ) from None
        if time.tzinfo is None:
            if self.zone is None:
                raise FaultError(
                    Fault.TIME_WITHOUT_ZONE,
                    f"expected a time with a UTC offset such as Z or +01:00, or the option timezone, got {text!r}",
                )
            first, second = (time.replace(tzinfo=self.zone, fold=fold) for fold in (0, 1))
            if first.utcoffset() != second.utcoffset():
                raise FaultError(
                    Fault.AMBIGUOUS_TIME,
                    f"{text!r} is skipped or repeated by a clock change in {self.timezone}; add a UTC offset",
                )
            time = first
        try:
            return time.astimezone(UTC)
        except OverflowError:
            raise FaultError(
                Fault.TIME_OUT_OF_RANGE, f"expected a time in the years 1 to 9999 (UTC), got {text!r}"
            ) from None

    def _from_number(self, text: str) -> datetime:
        number = _whole_number(text)
        if number is None:
            raise FaultError(Fault.UNREADABLE_TIME, f"expected an integer ({self.unit} since 1970), got {text!r}")
        try:
            microseconds = abs(number) * 1_000_000 // UNITS_PER_S[self.unit]  # towards zero, as Arrow
            return EPOCH + timedelta(microseconds=-microseconds if number < 0 else microseconds)
        except OverflowError:
            raise FaultError(
                Fault.TIME_OUT_OF_RANGE,
                f"expected a time in the years 1 to 9999 ({self.unit} since 1970), got {text!r}",
            ) from None


def _whole_number(text: str) -> int | None:
    """Return a 64-bit integer in any form that Arrow accepts: with blanks around it, or in hexadecimal with 0x."""
    text = text.strip(" \t")
    if re.fullmatch(r"-?[0-9]+", text):
        return int(text) if len(text) <= 20 else None
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", text):
        number = int(text, 16)
        return number if number < 2**63 else number - 2**64
    return None


def _in_range(times: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = times.type
    if kind.unit == "ns":  # 64 bits of nanoseconds range from 1677 to 2262
        return pc.is_valid(times)
    earliest, latest = (pa.scalar(bound, TIME_TYPE).cast(kind, safe=False) for bound in (EARLIEST, LATEST))
    return pc.and_(pc.greater_equal(times, earliest), pc.less_equal(times, latest))
