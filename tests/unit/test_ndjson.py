"""NDJSON: cutting, parsing, and the same result of Arrow and Python."""

import json
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.formats import BadInput, Columns, Parsed, Source, TextFormat, TimeFormat, borders, ndjson
from telemetry.formats.ndjson import FORMAT

COLUMNS = Columns(time="time", labels=("device",), values=("load", "heat"), null_values=("", "NA"))
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
GOOD = b'{"time":"2024-05-01T12:00:00Z","device":"a","load":1.5,"heat":20}\n'
# A line of rubbish, which has the rest of its slice read one by one.
BAD = b"rubbish\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "readings.ndjson"


def read_all(path: Path, batch_rows: int = 100, columns: Columns = COLUMNS) -> list[Parsed]:
    source = Source.local(path)
    slices = FORMAT.cut(source, batch_rows, columns)
    return [piece for part in slices for piece in FORMAT.read(source, part.place, columns)]


def rows_of(parsed: list[Parsed]) -> list[dict[str, object]]:
    return list(chain.from_iterable(part.table.to_pylist() for part in parsed))


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 100])
@pytest.mark.parametrize("scan_bytes", [1, 7, 1 << 20])
def test_slices_of_any_size_have_every_line_once_and_in_order(
    file: Path, monkeypatch: pytest.MonkeyPatch, batch_rows: int, scan_bytes: int
) -> None:
    monkeypatch.setattr(borders, "SCAN_BYTES", scan_bytes)
    lines = [GOOD.replace(b"1.5", str(number).encode()) for number in range(11)]
    lines[4] = BAD
    file.write_bytes(b"".join(lines).rstrip(b"\n"))  # the last line has no newline
    parsed = read_all(file, batch_rows)
    assert [row["load"] for row in rows_of(parsed)] == [number for number in range(11) if number != 4]
    assert [(reject.line, reject.raw) for part in parsed for reject in part.rejects] == [(5, "rubbish")]


@pytest.mark.parametrize("before", [b"", BAD], ids=["at once", "one by one"])
@pytest.mark.parametrize(
    ("line", "device", "load"),
    [
        (b'{"time":"2024-05-01T14:00+02:00","device":"a","load":1e3}', "a", 1000.0),
        (b'{"time":"2024-05-01 12:00:00Z","device":17,"load":null,"more":{"load":5,"load":[]}}', "17", None),
        (b'{"time":"2024-05-01T12:00Z","device":true,"load":-0.1}', "true", -0.1),
        (b'\xef\xbb\xbf{"time":"2024-05-01T12:00Z","device":"\xc3\xa4","load":0.123456789}\r', "ä", 0.123456789),
        (b'{"time":"2024-05-01T12:00Z","device":"a\\n\\ud83d\\ude00","load":36893488147419103232}', "a\n😀", 2.0**65),
        (b'{"time":"2024-05-01T12:00Z","device":"a","load":1,}', "a", 1.0),
        (b'{"time":"2024-05-01T12:00Z","device":"a","load":"NA"}', "a", None),
        (b'{"time":"2024-05-01T12:00Z","device":"a","load":Infinity}', "a", None),
        (b'{"time":"2024-05-01T12:00Z","device":"a","load":NaN}', "a", None),
        (b'{"time":"2024-05-01T12:00Z","device":"a","load":"NAN"}', "a", None),
    ],
)  # fmt: skip
def test_arrow_and_python_parse_the_same(
    file: Path, before: bytes, line: bytes, device: str, load: float | None
) -> None:
    file.write_bytes(before + line + b"\n")
    assert rows_of(read_all(file)) == [{"time": NOON, "device": device, "load": load, "heat": None}]


@pytest.mark.parametrize(
    ("line", "column", "fault", "detail"),
    [
        (b'{"device":"a"}', "time", "unreadable time", "the time is missing"),
        (b'{"time":"soon","device":"a"}', "time", "unreadable time", "(ISO 8601), got 'soon'"),
        (b'{"time":1714564800,"device":"a"}', "time", "unreadable time", "got 1714564800"),
        (b'{"time":"2024-05-01T12:00","device":"a"}', "time", "time without zone", "with a UTC offset"),
        (b'{"time":"2024-05-01T12:00Z"}', "device", "missing label", "the label is missing"),
        (b'{"time":"2024-05-01T12:00Z","device":""}', "device", "missing label", "the label is missing"),
        (b'{"time":"2024-05-01T12:00Z","device":1.5}', "device", "unreadable label", "as a label, got 1.5"),
        (b'{"time":"2024-05-01T12:00Z","device":["a"]}', "device", "unreadable label", 'as a label, got ["a"]'),
        (b'{"time":"2024-05-01T12:00Z","device":"a\\u0000"}', "device", "unreadable label", "got 'a\\\\x00'"),
        (b'{"time":"2024-05-01T12:00Z","device":"\\ud800"}', "device", "unreadable label", "UTF-8 text without NUL"),
        (b'{"time":"2024-05-01T12:00Z","device":"\xff"}', "device", "unreadable label", "UTF-8 text without NUL"),
        (b'{"time":"2024-05-01T12:00Z","device":"' + b"x" * 2001 + b'"}', "device", "labels too long", "2,001 bytes"),
        (b'{"time":"2024-05-01T12:00Z","device":"a","heat":"hot"}', "heat", "unreadable number", 'got "hot"'),
        (b'{"time":"2024-05-01T12:00Z","device":"a","heat":"1"}', "heat", "unreadable number", 'got "1"'),
        (b'{"time":"2024-05-01T12:00Z","device":"a","heat":true}', "heat", "unreadable number", "got true"),
        (b'{"time":"2024-05-01T12:00Z","device":"a","heat":1e999}', "heat", "number out of range", "1e999"),
        (b'{"time":"2024-05-01T12:00Z","device":"a","heat":1,"heat":2}', "", "broken record", "'heat' more than once"),
        (b'{"time":"2024-05-01T12:00Z","device":"a"', "", "broken record", "not valid JSON"),
        (b'{"a":1}{"b":2}', "", "broken record", "not valid JSON"),
        (b"[1]", "", "broken record", "not a JSON object"),
        (b"[" * 100_000, "", "broken record", "not valid JSON"),
        (b"[" * 100_001, "", "record too large", "100,001 of the characters { [ , : in total, the limit is 100,000"),
        (b"x" * (1 << 20), "", "record too large", "the line has 1,048,577 bytes, the limit is 1,048,576"),
        (b"{\x00}", "", "broken record", "not valid JSON"),
    ],
)  # fmt: skip
def test_a_bad_line_is_rejected_and_the_others_are_read(
    file: Path, line: bytes, column: str, fault: str, detail: str
) -> None:
    file.write_bytes(GOOD + line + b"\n" + GOOD)
    (parsed,) = read_all(file)
    assert parsed.table.num_rows == 2
    (reject,) = parsed.rejects
    assert (reject.line, reject.column, str(reject.fault)) == (2, column, fault)
    assert detail in reject.detail
    json.dumps(reject.raw, ensure_ascii=False).encode()


@pytest.mark.parametrize("before", [b"", BAD], ids=["at once", "one by one"])
def test_epoch_times(file: Path, before: bytes) -> None:
    columns = Columns("time", ("device",), ("load",), times=TimeFormat("ms"))
    file.write_bytes(before + b'{"time":1714564800000,"device":"a","load":1}\n')
    assert rows_of(read_all(file, columns=columns))[0]["time"] == NOON


@pytest.mark.parametrize("before", [b"\n", b"{\n" + GOOD[1:], b"\xef\xbb\xbf\n"], ids=["blank", "of two lines", "mark"])
def test_two_objects_in_a_line_are_rejected_whatever_the_number_of_lines(file: Path, before: bytes) -> None:
    two = GOOD[:-1] + GOOD
    file.write_bytes(before + two + GOOD)
    parsed = read_all(file)
    assert len(rows_of(parsed)) == 1
    assert two.decode().rstrip() in [reject.raw for part in parsed for reject in part.rejects]


def test_blank_lines_are_ignored(file: Path) -> None:
    file.write_bytes(GOOD + b"\n  \n" + GOOD + b"\n")
    (parsed,) = read_all(file)
    assert (parsed.table.num_rows, parsed.rejects) == (2, [])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"time,device\n1,2\n", "readings.ndjson:1: not an NDJSON file: not valid JSON"),
        (
            GOOD.replace(b"device", b"gadget"),
            "readings.ndjson:1: missing column 'device'; the file has the columns time, gadget",
        ),
        (GOOD.replace(b"heat", b"cold"), "readings.ndjson: missing column 'heat'; the file has the columns time, dev"),
        (
            GOOD.replace(b"2024-05-01", b"someday"),
            "ndjson:1: column 'time': expected a time .*, got 'somedayT12:00:00Z",
        ),
        (b"", "the file is empty"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_refused(file: Path, content: bytes, problem: str) -> None:
    file.write_bytes(content)
    with pytest.raises(BadInput, match=problem):
        FORMAT.check(Source.local(file), COLUMNS)


def test_options_for_csv_are_refused(file: Path) -> None:
    file.write_bytes(GOOD)
    FORMAT.check(Source.local(file), COLUMNS)
    with pytest.raises(BadInput, match="for CSV files only"):
        FORMAT.check(Source.local(file), Columns("time", ("device",), ("load",), text=TextFormat(delimiter=";")))


def test_a_line_that_is_too_long_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(borders, "RECORD_MAX_BYTES", 1000)
    file.write_bytes(GOOD + b"x" * 2000)
    with pytest.raises(BadInput, match=r"readings\.ndjson:2: the line is longer than"):
        list(FORMAT.cut(Source.local(file), 10, COLUMNS))


PARTS = (
    *(
        b"\n",
        b"\r\n",
        b"\r",
        b" ",
        b"\t",
        b"\x0b",
        b"\xc2\xa0",
        b"\xe2\x80\xa8",
        b"\xff",
        b"\0",
        b'"',
        b"{",
        b"}",
        b"{}",
        b"1",
    ),
    *(
        GOOD,
        GOOD[:-1],
        b"{\n" + GOOD[1:],
        GOOD.replace(b"1.5", b"NaN"),
        GOOD.replace(b"1.5", b"-Infinity"),
        GOOD.replace(b"1.5", b"Inf"),
    ),
    *(GOOD.replace(b"00:00Z", b"00:00.123456789Z"), GOOD.replace(b'"a"', b'"\\ud800"'), b"\xef\xbb\xbf"),
)


def peak_bytes(read: Callable[[], object]) -> int:
    """Return the peak memory of Python and numpy while the file was read."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Each has what Arrow is not asked to read.
NESTED = GOOD[:-2] + b',"z":[%s{}],"y":"\\u0000"}\n'


@pytest.mark.parametrize("count", [30_000, 300_000, 1_300_000], ids=["allowed", "too many marks", "too long"])
def test_a_nested_line_takes_a_few_times_its_size(file: Path, count: int) -> None:
    line = NESTED % (b"{}," * count)
    file.write_bytes(line * 2)
    assert peak_bytes(lambda: read_all(file, 1)) < (16 << 20) + 8 * len(line)
    found = [(part.table.num_rows, [str(reject.fault) for reject in part.rejects]) for part in read_all(file, 1)]
    assert found == [(1, []) if count == 30_000 else (0, ["record too large"])] * 2


def test_a_sample_is_small_however_long_the_lines_are(file: Path) -> None:
    file.write_bytes(NESTED % (b"{}," * 1_300_000) + GOOD)
    source = Source.local(file)
    slices = list(FORMAT.cut(source, 1, COLUMNS))
    assert peak_bytes(lambda: list(FORMAT.sample(source, slices[0], COLUMNS, 4_000))) < 4 << 20
    assert [part.table.num_rows for part in FORMAT.sample(source, slices[1], COLUMNS, 4_000)] == [1]


def test_a_large_line_is_rejected_independently_of_other_lines(file: Path) -> None:
    large = GOOD[:-2] + b',"z":[%s0]}\n' % (b"0," * 100_000)
    for neighbour in (GOOD, BAD):
        file.write_bytes(large + neighbour)
        faults = [str(reject.fault) for part in read_all(file) for reject in part.rejects]
        assert faults == ["record too large", "broken record"][: 1 + (neighbour == BAD)]


def test_repeated_names_take_linear_time(file: Path) -> None:
    names = b",".join(b'"n%d":0' % (number // 2) for number in range(48_000))
    file.write_bytes(GOOD[:-2] + b',"z":{%s}}\n' % names + BAD)
    (parsed,) = read_all(file)
    assert (parsed.table.num_rows, len(parsed.rejects)) == (1, 1)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(st.sampled_from(PARTS), min_size=1, max_size=12).map(b"".join),
    batch_rows=st.integers(1, 8),
    block_bytes=st.sampled_from((1, 60, 1 << 20)),
    limits=st.sampled_from(((1 << 20, 100_000), (100, 100_000), (1 << 20, 5))),
)
def test_each_line_is_parsed_rejected_or_blank_for_any_slices(
    file: Path, data: bytes, batch_rows: int, block_bytes: int, limits: tuple[int, int]
) -> None:
    file.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ndjson, "LINE_MAX_BYTES", limits[0])
        patch.setattr(ndjson, "MARKS_MAX", limits[1])
        whole = read_all(file)
        patch.setattr(borders, "SCAN_BYTES", block_bytes)
        patch.setattr(borders, "PIECE_BYTES", block_bytes)
        parsed = read_all(file, batch_rows)
    assert rows_of(parsed) == rows_of(whole)
    rejects = {reject.line: reject for part in parsed for reject in part.rejects}
    assert rejects == {reject.line: reject for part in whole for reject in part.rejects}
    lines = data.split(b"\n")
    for number, reject in rejects.items():
        text = lines[number - 1].rstrip(b"\r").decode("utf-8", "backslashreplace").replace("\0", "\\x00")
        assert reject.raw == text
    blank = sum(not line.strip(b" \t\r") for line in lines)
    assert len(rows_of(parsed)) + len(rejects) + blank == len(lines)
