"""Format options: epoch times and time zones, delimiters and decimal marks, encodings."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from telemetry.arguments import ascii_encoding, escape_character, one_character, timezone
from telemetry.formats import BadInput, Columns, Source, TextFormat, TimeFormat, csv, parquet

BAD_NEIGHBOUR = b"bad,a,1\n"  # with it in the slice, the rows are read one by one instead of all at once


def read_csv(path: Path, content: bytes, **how: Any) -> tuple[list[dict[str, Any]], list[str]]:
    path.write_bytes(content)
    columns = Columns("time", ("device",), ("load",), ("",), **how)
    (part,) = csv.FORMAT.cut(Source.local(path), 100, columns)
    (parsed,) = csv.FORMAT.read(Source.local(path), part.place, columns)
    return parsed.table.to_pylist(), [reject.detail for reject in parsed.rejects]


@pytest.mark.parametrize("neighbour", [b"", BAD_NEIGHBOUR])
@pytest.mark.parametrize(
    ("unit", "text", "expected"),
    [
        ("s", b"1714521600", datetime(2024, 5, 1, tzinfo=UTC)),
        ("s", b" 1714521600\t", datetime(2024, 5, 1, tzinfo=UTC)),
        ("s", b"0x66318600", datetime(2024, 5, 1, tzinfo=UTC)),
        ("s", b"-1", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("ms", b"1714521600123", datetime(2024, 5, 1, 0, 0, 0, 123_000, tzinfo=UTC)),
        ("us", b"1714521600123456", datetime(2024, 5, 1, 0, 0, 0, 123_456, tzinfo=UTC)),
        ("ns", b"1714521600123456789", datetime(2024, 5, 1, 0, 0, 0, 123_456, tzinfo=UTC)),
        ("ns", b"-1500", datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    ],
)
def test_epoch_times(tmp_path: Path, unit: str, text: bytes, expected: datetime, neighbour: bytes) -> None:
    content = b"time,device,load\n" + text + b",a,1\n" + neighbour
    rows, rejects = read_csv(tmp_path / "a.csv", content, times=TimeFormat(unit))
    assert [row["time"] for row in rows] == [expected]
    assert len(rejects) == bool(neighbour)


@pytest.mark.parametrize(("unit", "text"), [("s", b"1.5"), ("s", b"2024-05-01"), ("ms", b""), ("s", b"99999999999999")])
def test_invalid_epoch_times_are_rejected(tmp_path: Path, unit: str, text: bytes) -> None:
    rows, rejects = read_csv(tmp_path / "a.csv", b"time,device,load\n" + text + b",a,1\n", times=TimeFormat(unit))
    assert (rows, len(rejects)) == ([], 1)


@pytest.mark.parametrize("neighbour", [b"", BAD_NEIGHBOUR])
def test_times_without_a_zone_are_read_in_the_zone_of_the_option(tmp_path: Path, neighbour: bytes) -> None:
    content = b"time,device,load\n2024-01-15T12:00:00,a,1\n2024-07-15 12:00:00,a,1\n" + neighbour
    rows, _ = read_csv(tmp_path / "a.csv", content, times=TimeFormat(timezone="Europe/Berlin"))
    assert [row["time"].hour for row in rows] == [11, 10]


def test_a_time_in_a_skipped_or_repeated_hour_is_rejected(tmp_path: Path) -> None:
    content = b"time,device,load\n2024-03-31T02:30:00,a,1\n2024-10-27T02:30:00,a,1\n2024-10-27T04:30:00,a,1\n"
    rows, rejects = read_csv(tmp_path / "a.csv", content, times=TimeFormat(timezone="Europe/Berlin"))
    assert [row["time"].hour for row in rows] == [3]
    assert all("is skipped or repeated by a clock change in Europe/Berlin" in reason for reason in rejects)
    assert len(rejects) == 2


def test_a_zone_in_the_file_takes_precedence_over_the_option(tmp_path: Path) -> None:
    content = b"time,device,load\n2024-01-15T12:00:00Z,a,1\n2024-01-15T12:00:00,a,1\n"
    rows, rejects = read_csv(tmp_path / "a.csv", content, times=TimeFormat(timezone="Europe/Berlin"))
    assert ([row["time"].hour for row in rows], rejects) == ([12, 11], [])


@pytest.mark.parametrize("neighbour", [b"", b"bad;a;1\n"])
def test_decimal_commas_between_semicolons(tmp_path: Path, neighbour: bytes) -> None:
    content = b'time;device;load\n2024-05-01T00:00Z;"a;b";-1,5\n' + neighbour
    rows, rejects = read_csv(tmp_path / "a.csv", content, text=TextFormat(delimiter=";", decimal=","))
    assert [(row["device"], row["load"]) for row in rows] == [("a;b", -1.5)]
    assert len(rejects) == bool(neighbour)


def test_a_decimal_point_among_decimal_commas_is_rejected(tmp_path: Path) -> None:
    content = b"time;device;load\n2024-05-01T00:00Z;a;1.500\n2024-05-01T00:00Z;a;1,5\n"
    rows, rejects = read_csv(tmp_path / "a.csv", content, text=TextFormat(delimiter=";", decimal=","))
    assert ([row["load"] for row in rows], rejects) == ([1.5], ["expected a number, got '1.500'"])


@pytest.mark.parametrize("neighbour", [b"", BAD_NEIGHBOUR])
def test_latin_1(tmp_path: Path, neighbour: bytes) -> None:
    content = b"time,device,load\n2024-05-01T00:00Z,M\xfcnchen,1\n" + neighbour
    rows, rejects = read_csv(tmp_path / "a.csv", content, text=TextFormat(encoding="latin-1"))
    assert [row["device"] for row in rows] == ["München"]
    assert len(rejects) == bool(neighbour)


def test_tabs(tmp_path: Path) -> None:
    rows, _ = read_csv(tmp_path / "a.csv", b"time\tdevice\tload\n2024-05-01T00:00Z\ta,b\t1\n", text=TextFormat("\t"))
    assert rows[0]["device"] == "a,b"


def test_parquet_with_epoch_times_and_with_times_without_a_zone(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    naive = [datetime(2024, 1, 15, 12), datetime(2024, 3, 31, 2, 30)]  # noqa: DTZ001 - naive on purpose
    for times, how, hours in (
        (pa.array([1714521600, None]), TimeFormat("s"), [0]),
        (pa.array(naive, pa.timestamp("us")), TimeFormat(timezone="Europe/Berlin"), [11]),
    ):
        pq.write_table(pa.table({"time": times, "device": ["a", "a"], "load": [1, 2]}), path)
        columns = Columns("time", ("device",), ("load",), times=how)
        parquet.FORMAT.check(Source.local(path), columns)
        (part,) = parquet.FORMAT.cut(Source.local(path), 10, columns)
        (parsed,) = parquet.FORMAT.read(Source.local(path), part.place, columns)
        assert [row["time"].hour for row in parsed.table.to_pylist()] == hours
        assert [reject.line for reject in parsed.rejects] == [2]
    with pytest.raises(BadInput, match="expected timestamps with a time zone in column 'time', or the option timezone"):
        parquet.FORMAT.check(Source.local(path), Columns("time", ("device",), ("load",)))


def test_nan_and_nanoseconds_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    ns = [1714521600123456789, None, 1714521600123456999, -1]
    times = pa.array(ns, pa.timestamp("ns", "UTC"))
    pq.write_table(pa.table({"time": times, "device": ["a"] * 4, "load": [1.0, 2.0, float("nan"), float("inf")]}), path)
    for keep_nan, loads in ((False, ["1.0", "None", "None"]), (True, ["1.0", "nan", "inf"])):
        columns = Columns("time", ("device",), ("load",), keep_nan=keep_nan)
        (part,) = parquet.FORMAT.cut(Source.local(path), 10, columns)
        (parsed,) = parquet.FORMAT.read(Source.local(path), part.place, columns)
        assert [str(load) for load in parsed.table["load"].to_pylist()] == loads
        assert [time.microsecond for time in parsed.table["time"].to_pylist()] == [123_456, 123_456, 999_999]
        assert parsed.cut_off_ns is not None
        assert parsed.cut_off_ns.tolist() == [789, 999, 999]


def test_errors_of_arguments_say_what_is_expected() -> None:
    for text in ("", "ab", '"', "x", "\n"):
        with pytest.raises(ValueError, match="expected one punctuation mark other than a double quote"):
            escape_character(text)
    assert (timezone("Europe/Berlin"), one_character("\\t"), ascii_encoding("cp1252")) == (
        "Europe/Berlin",
        "\t",
        "cp1252",
    )
    for read, text in ((timezone, "Mars/Phobos"), (timezone, "../etc"), (one_character, ""), (one_character, '"')):
        with pytest.raises(ValueError, match="expected "):
            read(text)
    for encoding in (
        "utf-16",
        "klingon",
        "cp037",
        "shift_jis",
        "gbk",
        "utf-7",
        "raw_unicode_escape",
        "rot13",
        "idna",
        "a\0",
    ):
        with pytest.raises(ValueError, match="expected utf-8 or a single-byte encoding that extends ASCII"):
            ascii_encoding(encoding)
