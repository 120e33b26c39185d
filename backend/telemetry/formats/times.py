"""Times as files have them (ISO 8601 with or without a zone, numbers since the epoch) and as readings have them."""

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
# What Python's datetime holds; PostgreSQL holds more, but then no driver could read it back.
EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
NS_PER_US = 1_000
BELOW_MICROSECONDS = re.compile(r"[.,]\d{6}(\d{1,3})")


@dataclass(frozen=True)
class TimeFormat:
    """How a file writes its times."""

    unit: str = "iso"
    """iso, or s, ms, us, ns: a whole number of them since 1970"""
    timezone: str = ""
    """the zone of ISO times that name none, by its IANA name; empty: such a time is refused"""

    @cached_property
    def zone(self) -> ZoneInfo | None:
        """The zone of times that name none."""
        return ZoneInfo(self.timezone) if self.timezone else None

    @property
    def column_types(self) -> tuple[pa.DataType, ...]:
        """The types as which Arrow may read the column; a later one takes what is too fine for those before it."""
        if self.unit != "iso":
            return (pa.int64(),)
        zone = None if self.timezone else "UTC"
        return (pa.timestamp("us", zone), pa.timestamp("ns", zone))

    def from_column(self, column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """Make times of a column of integers or timestamps.

        Returns:
            The times as TIME_TYPE, and for each row whether it is one: null, out of the years 1 to 9999, or in an hour
            that a change of clocks skips or repeats, it is none.
        """
        if column.type == pa.uint64():
            column = pc.if_else(
                pc.less_equal(column, pa.scalar(2**63 - 1, pa.uint64())), column, pa.scalar(None, pa.uint64())
            )
        if pa.types.is_integer(column.type):
            column = column.cast(pa.int64()).cast(pa.timestamp(self.unit, tz="UTC"))
        elif (cut_off_ns := self.cut_off_ns(column)) is not None:  # or times before 1970 would be rounded up
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
        """Return what the times that `from_column` makes of a column leave out; None if that is nothing."""
        kind = column.type
        if (kind.unit if pa.types.is_timestamp(kind) else self.unit) != "ns":
            return None
        ns = pc.fill_null(column.cast(pa.int64(), safe=False), 0).to_numpy()
        cut_off = ns % NS_PER_US if pa.types.is_timestamp(kind) else np.fmod(ns, NS_PER_US)
        return cut_off.astype(np.int16) if cut_off.any() else None

    def cut_off_ns_of(self, text: str) -> int:
        """Return what the time that `from_text` makes of a text leaves out."""
        if self.unit == "iso":
            found = BELOW_MICROSECONDS.search(text)
            return int(found[1].ljust(3, "0")) if found else 0
        number = _whole_number(text) if self.unit == "ns" else None
        return abs(number) % NS_PER_US * (1 if number > 0 else -1) if number else 0

    def from_text(self, text: str) -> datetime:
        """Make a time of a cell.

        Raises:
            FaultError: it is none, or the format leaves open which; the text says what is allowed.
        """
        return self._from_iso(text) if self.unit == "iso" else self._from_number(text)

    def _from_iso(self, text: str) -> datetime:
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise FaultError(
                Fault.UNREADABLE_TIME, f"{text!r} is no time; allowed: 2013-01-31T06:00:00Z (ISO 8601)"
            ) from None
        if time.tzinfo is None:
            if self.zone is None:
                raise FaultError(
                    Fault.TIME_WITHOUT_ZONE,
                    f"{text!r} has no zone; allowed: an offset at its end, as Z or +01:00, or the option timezone",
                )
            first, second = (time.replace(tzinfo=self.zone, fold=fold) for fold in (0, 1))
            if first.utcoffset() != second.utcoffset():
                raise FaultError(
                    Fault.AMBIGUOUS_TIME, f"{text!r} is skipped or repeated by a change of clocks in {self.timezone}"
                )
            time = first
        try:
            return time.astimezone(UTC)
        except OverflowError:
            raise FaultError(
                Fault.TIME_OUT_OF_RANGE, f"{text!r} is out of range; allowed: the years 1 to 9999 in UTC"
            ) from None

    def _from_number(self, text: str) -> datetime:
        number = _whole_number(text)
        if number is None:
            raise FaultError(Fault.UNREADABLE_TIME, f"{text!r} is no whole number of {self.unit} since 1970")
        try:
            microseconds = abs(number) * 1_000_000 // UNITS_PER_S[self.unit]  # towards zero, as Arrow
            return EPOCH + timedelta(microseconds=-microseconds if number < 0 else microseconds)
        except OverflowError:
            raise FaultError(
                Fault.TIME_OUT_OF_RANGE, f"{text!r} is out of range; allowed: the years 1 to 9999"
            ) from None


def _whole_number(text: str) -> int | None:
    """Read what Arrow reads as a whole number of 64 bits: spaces around it, or 0x before it, do not matter."""
    text = text.strip(" \t")
    if re.fullmatch(r"-?[0-9]+", text):
        return int(text) if len(text) <= 20 else None
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", text):
        number = int(text, 16)
        return number if number < 2**63 else number - 2**64
    return None


def _in_range(times: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = times.type
    if kind.unit == "ns":  # 64 bits of them reach from 1677 to 2262
        return pc.is_valid(times)
    earliest, latest = (pa.scalar(bound, TIME_TYPE).cast(kind, safe=False) for bound in (EARLIEST, LATEST))
    return pc.and_(pc.greater_equal(times, earliest), pc.less_equal(times, latest))
