"""CSV: cutting, parsing, and rejecting single rows."""

import os
import signal
import threading
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from queue import SimpleQueue

import pytest

from telemetry.formats import BadInput, Columns, Parsed, Source, TextFormat, TimeFormat, borders, recognise
from telemetry.formats.csv import FORMAT
from tests.conftest import DEADLINE_S

COLUMNS = Columns(time="time", labels=("device",), values=("load", "heat"), null_values=("", "NA"))
HEADER = b"time,device,load,heat\n"
GOOD = b"2024-05-01T00:00:00Z,a,1.5,20\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "readings.csv"


def read_all(path: Path, batch_rows: int, columns: Columns = COLUMNS) -> list[Parsed]:
    source = Source.local(path)
    slices = FORMAT.cut(source, batch_rows, columns)
    return [piece for part in slices for piece in FORMAT.read(source, part.place, columns)]


def rows_of(parsed: list[Parsed]) -> list[dict[str, object]]:
    return list(chain.from_iterable(part.table.to_pylist() for part in parsed))


def rejects_of(parsed: list[Parsed]) -> list[tuple[int, str, str]]:
    return [(reject.line, reject.column, reject.detail) for part in parsed for reject in part.rejects]


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("scan_bytes", [1, 5, 64, 1 << 20])
def test_slices_of_any_size_have_every_row_once_and_in_order(
    file: Path, monkeypatch: pytest.MonkeyPatch, batch_rows: int, scan_bytes: int
) -> None:
    monkeypatch.setattr(borders, "SCAN_BYTES", scan_bytes)
    lines = [b'2024-05-01T00:00:%02dZ,"dev\nice ""%d"", x",%d,NA\n' % (i, i, i) for i in range(11)]
    file.write_bytes(HEADER + b"".join(lines).rstrip(b"\n"))  # the last line has no newline
    slices = list(FORMAT.cut(Source.local(file), batch_rows, COLUMNS))
    assert sum(part.row_count for part in slices) == 11
    assert all(part.row_count <= batch_rows for part in slices)
    parsed = read_all(file, batch_rows)
    assert [row["load"] for row in rows_of(parsed)] == list(range(11))
    assert rows_of(parsed)[3]["device"] == 'dev\nice "3", x'
    assert rejects_of(parsed) == []


def test_cells_are_typed_and_empty_ones_are_null(file: Path) -> None:
    file.write_bytes(HEADER + b"2024-05-01T02:00:00+02:00,NA,NA,\n")
    (row,) = rows_of(read_all(file, 10))
    assert row == {"time": datetime(2024, 5, 1, tzinfo=UTC), "device": "NA", "load": None, "heat": None}


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        (b"yesterday,a,1,2\n", "time", "expected a time such as 2013-01-31T06:00:00Z (ISO 8601), got 'yesterday'"),
        (b"2024-02-30T00:00:00Z,a,1,2\n", "time", "(ISO 8601), got '2024-02-30T00:00:00Z'"),
        (b"2024-05-01T00:00:00,a,1,2\n", "time", "expected a time with a UTC offset"),
        (b",a,1,2\n", "time", "(ISO 8601), got ''"),
        (b"2024-05-01T00:00:00Z,,1,2\n", "device", "the label is missing"),
        (b"2024-05-01T00:00:00Z,a,one,2\n", "load", "expected a number, got 'one'"),
        (b"2024-05-01T00:00:00Z,a,1_0,2\n", "load", "expected a number, got '1_0'"),
        (b"2024-05-01T00:00:00Z,a,1\n", "", "expected 4 cells as in the header, got 3"),
        (b"2024-05-01T00:00:00Z,a,1,2,3\n", "", "expected 4 cells as in the header, got 5"),
        (b"2024-05-01T00:00:00Z,\xff,1,2\n", "device", "expected UTF-8 text without NUL characters, got '\\\\xff'"),
        (b"2024-05-01T00:00:00Z,a\0b,1,2\n", "device", "NUL"),
    ],
)
def test_a_bad_row_is_rejected_and_the_others_are_read(file: Path, line: bytes, column: str, reason: str) -> None:
    file.write_bytes(HEADER + GOOD + line + GOOD)
    parsed = read_all(file, 100)
    assert len(rows_of(parsed)) == 2
    ((at, where, why),) = rejects_of(parsed)
    assert (at, where) == (3, column)
    assert reason in why
    (raw,) = (reject.raw for part in parsed for reject in part.rejects)
    assert "\0" not in raw, "PostgreSQL keeps no NUL"


def test_line_numbers_are_those_of_the_file_not_of_the_slice(file: Path) -> None:
    file.write_bytes(HEADER + b'2024-05-01T00:00:00Z,"two\nlines",1,2\n' + GOOD * 3 + b"bad,a,1,2\n")
    assert [line for line, *_ in rejects_of(read_all(file, 2))] == [7]


TIMES = (
    *(
        b"2024-05-01 00:00:00.123456Z",
        b"2024-05-01T00:00Z",
        b"2024-05-01T00:00:00+0530",
        b"2024-05-01",
        b"20240501T00Z",
    ),
    *(
        b"2024-05-01T00:00:00.1234567Z",
        b"2024-05-01T24:00:00Z",
        b"2024-05-01T00:00:60Z",
        b" 2024-05-01T00:00Z",
        b"17145",
    ),
    *(b"0000-05-01T00:00Z", b"0001-01-01T00:00:00+05:00", b"9999-12-31T23:59:59-05:00", b"9999-12-31T23:59:59Z"),
)
NUMBERS = (
    *(b"-1e-3", b"inf", b"-Infinity", b"nan", b"nan(1)", b"1e400", b"1e-400", b"0x10", b"1_0", b"+1", b" 1", b"1."),
    *(b".5", b"1,5", b"NA", b"", b"1e", b"\xd9\xa1", b'"2"', b'2"', b"1\r2"),
)
LABELS = (
    *(b"NA", b" a ", b'"a,b"', b'"a""b"', b'a"b', b"\xc3\xa9", b"\xff", b"a\0b", b'""', b"x" * 2000, b"x" * 2001),
)
CELLS = [
    (column, text)
    for column, texts in (("time", TIMES), ("load", NUMBERS), ("device", LABELS))
    for text in texts
]  # fmt: skip


@pytest.mark.parametrize(("column", "text"), CELLS)
def test_whether_and_how_a_row_is_read_does_not_depend_on_its_neighbours(file: Path, column: str, text: bytes) -> None:
    cells = {"time": b"2024-05-01T00:00:00Z", "device": b"a", "load": b"1", "heat": b"", column: text}
    row = b",".join(cells.values()) + b"\n"
    file.write_bytes(HEADER + row)
    alone = read_all(file, 10)
    file.write_bytes(HEADER + row + b"bad,row,1,2\n")  # Arrow refuses the slice, and it is read row by row
    with_neighbour = read_all(file, 10)
    assert repr(rows_of(with_neighbour)) == repr(rows_of(alone))  # by text: a nan equals nothing
    assert rejects_of(with_neighbour)[:-1] == rejects_of(alone)


def test_an_undecodable_byte_in_an_unused_column_is_ignored(file: Path) -> None:
    file.write_bytes(HEADER.replace(b"\n", b",gr\xf6\xdfe\n") + GOOD.replace(b"\n", b",\xff\n"))
    FORMAT.check(Source.local(file), COLUMNS)
    assert (len(rows_of(read_all(file, 100))), rejects_of(read_all(file, 100))) == (1, [])


def test_a_cell_of_an_unused_column_may_be_long(file: Path) -> None:
    header, row = HEADER.replace(b"\n", b",note\n"), GOOD.replace(b"\n", b"," + b"x" * 200_000 + b"\n")
    file.write_bytes(header + row + row + b"bad,a,1,2,\n")
    assert len(rows_of(read_all(file, 100))) == 2
    FORMAT.check(Source.local(file), COLUMNS)


@pytest.mark.parametrize("rows_before", [1, 10_000], ids=["in the sample", "behind the sample"])
def test_a_nul_rejects_only_its_own_row(file: Path, rows_before: int) -> None:
    file.write_bytes(HEADER + GOOD * rows_before + GOOD.replace(b",a,", b",a\0,") + GOOD)
    FORMAT.check(Source.local(file), COLUMNS)
    parsed = read_all(file, 100_000)
    ((line, column, detail),) = rejects_of(parsed)
    assert (len(rows_of(parsed)), line, column) == (rows_before + 1, rows_before + 2, "device")
    assert "without NUL characters" in detail


def test_a_byte_order_mark_is_not_part_of_a_column_name(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + HEADER + GOOD)
    FORMAT.check(Source.local(file), COLUMNS)
    assert len(rows_of(read_all(file, 100))) == 1


@pytest.mark.parametrize("batch_rows", [1, 3, 100])
def test_a_quote_within_an_unquoted_cell_does_not_change_where_records_end(file: Path, batch_rows: int) -> None:
    strays = [b'2024-05-01T00:00:00Z,5" disk,1,2\n', GOOD, b'2024-05-01T00:00:00Z,"two\nlines",1,2\n', GOOD] * 3
    file.write_bytes(HEADER + b"".join(strays).rstrip(b"\n"))
    slices = list(FORMAT.cut(Source.local(file), batch_rows, COLUMNS))
    assert [part.row_count for part in slices] == [batch_rows] * (12 // batch_rows) or [
        part.row_count for part in slices
    ] == [12]
    parsed = read_all(file, batch_rows)
    assert [row["device"] for row in rows_of(parsed)] == ['5" disk', "a", "two\nlines", "a"] * 3
    assert rejects_of(parsed) == []


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_an_unclosed_quote_rejects_only_its_own_line(file: Path, batch_rows: int) -> None:
    file.write_bytes(HEADER + GOOD + b'2024-05-01T00:00:00Z,"open,1,2\n' + GOOD * 5)
    parsed = read_all(file, batch_rows)
    assert len(rows_of(parsed)) == 6
    assert rejects_of(parsed) == [(3, "", "the quote at byte 22 of the line is not closed")]


BACKSLASHES = (
    b'2024-05-01T00:00:00Z,"north \\"A\\" mast",1.5,\n'
    b'2024-05-01T00:01:00Z,"pipe 5\\"",2.5,\n'
    b'2024-05-01T00:02:00Z,"south",3.5,\n'
    b'2024-05-01T00:03:00Z,"20\\" line",4.5,\n'
)


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_text_after_a_closing_quote_rejects_only_its_own_line(file: Path, batch_rows: int) -> None:
    file.write_bytes(HEADER + BACKSLASHES)
    parsed = read_all(file, batch_rows)
    assert [(row["device"], row["load"]) for row in rows_of(parsed)] == [("south", 3.5)]
    lines = BACKSLASHES.decode().splitlines()
    rejects = [reject for part in parsed for reject in part.rejects]
    assert [(reject.line, reject.raw) for reject in rejects] == [(2, lines[0]), (3, lines[1]), (5, lines[3])]
    assert {str(reject.fault) for reject in rejects} == {"broken record"}
    assert "expected a delimiter after a closing quote, got 'A" in rejects[0].detail


@pytest.mark.parametrize("bad", [b"", b"bad,a,1,2\n"], ids=["at once", "one by one"])
@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_an_escape_character_makes_a_quote_part_of_its_cell(file: Path, batch_rows: int, bad: bytes) -> None:
    more = b'2024-05-01T00:04:00Z,a\\,b\\\\,5.5,\n2024-05-01T00:05:00Z,"two\nlines\\\\",6.5,\n'
    file.write_bytes(HEADER + BACKSLASHES + more + bad)
    columns = replace(COLUMNS, text=TextFormat(escape="\\"))
    parsed = read_all(file, batch_rows, columns)
    labels = ['north "A" mast', 'pipe 5"', "south", '20" line', "a,b\\", "two\nlines\\"]
    assert [row["device"] for row in rows_of(parsed)] == labels
    assert len(rejects_of(parsed)) == bool(bad)


@pytest.mark.parametrize("neighbours", [b"", b"bad,a,1,2\n"], ids=["at once", "one by one"])
@pytest.mark.parametrize(
    ("row", "device", "load"),
    [
        (b"2024-05-01T00:00Z,      9400,   -999,1\n", "9400", None),
        (b" 2024-05-01T00:00Z\t, 9400 ,\t1.5 ,1\r\n", "9400", 1.5),
        (b' "2024-05-01T00:00Z" , " 9400 " , "  -999" , "1" \n', " 9400 ", None),
        (b'"2024-05-01T00:00Z", "a, b", "NAN",1\n', "a, b", None),
        (b'"2024-05-01T00:00Z","a \nb",   ,1\n', "a \nb", None),
    ],
)
def test_blanks_around_a_cell_do_not_matter_outside_its_quotes(
    file: Path, row: bytes, device: str, load: float | None, neighbours: bytes
) -> None:
    file.write_bytes(b"time, device ,load\t,heat\n" + row + neighbours)
    columns = replace(COLUMNS, null_values=("", "-999"))
    FORMAT.check(Source.local(file), columns)
    parsed = read_all(file, 100, columns)
    expected = {"time": datetime(2024, 5, 1, tzinfo=UTC), "device": device, "load": load, "heat": 1}
    assert rows_of(parsed) == [expected]
    assert len(rejects_of(parsed)) == bool(neighbours)


def test_blanks_around_a_column_name_are_ignored(file: Path) -> None:
    file.write_bytes(b"time,device ,load \n2024-05-01T00:00Z,a,1\n")
    for name in ("load", "load ", " load"):
        columns = Columns("time", ("device",), (name,))
        FORMAT.check(Source.local(file), columns)
        assert [row[name] for row in rows_of(read_all(file, 100, columns))] == [1]
    file.write_bytes(b"time,device,load,load \n2024-05-01T00:00Z,a,1,2\n")
    with pytest.raises(BadInput, match="column 'load' occurs more than once"):
        FORMAT.check(Source.local(file), Columns("time", ("device",), ("load",)))


@pytest.mark.parametrize("neighbours", [b"", b"bad,a,1,2\n"], ids=["at once", "one by one"])
@pytest.mark.parametrize("text", [b"NAN", b"nan", b"-NaN", b"INF", b"-inf", b"Infinity", b'"NAN"', b"iNF", b" nan "])
def test_nan_and_infinity_are_empty_unless_they_are_kept(file: Path, text: bytes, neighbours: bytes) -> None:
    file.write_bytes(HEADER + b"2024-05-01T00:00Z,a,%s,1\n" % text + neighbours)
    assert [row["load"] for row in rows_of(read_all(file, 100))] == [None]
    (row,) = rows_of(read_all(file, 100, replace(COLUMNS, keep_nan=True)))
    assert str(row["load"]) == str(float(text.strip(b'"')))


@pytest.mark.parametrize(
    ("line", "column", "detail"),
    [
        (
            b"2024-05-01T00:00:02Z,Ger\xe4t \x81,1,2\n",
            "device",
            "expected CP1252 text without NUL characters, got 'Gerät \\\\x81'",
        ),
        (b"2024-05-01T00:00:02Z,a,1\x8f,2\n", "load", "expected a number, got '1\\\\x8f'"),
        (b"2024-05-01T00:00:02Z\x90,a,1,2\n", "time", "(ISO 8601), got '2024-05-01T00:00:02Z\\\\x90'"),
    ],
)
@pytest.mark.parametrize("rows_before", [1, 10_000], ids=["in the sample", "behind the sample"])
def test_an_undefined_byte_of_an_encoding_rejects_only_its_own_row(
    file: Path, line: bytes, column: str, detail: str, rows_before: int
) -> None:
    good = b"2024-05-01T00:00:01Z,K\xe4ltekammer 1,4.5,\n"
    file.write_bytes(HEADER + good * rows_before + line + good)
    columns = replace(COLUMNS, text=TextFormat(encoding="cp1252"))
    FORMAT.check(Source.local(file), columns)
    parsed = read_all(file, 100_000, columns)
    assert [row["device"] for row in rows_of(parsed)] == ["Kältekammer 1"] * (rows_before + 1)
    ((at, where, why),) = rejects_of(parsed)
    assert (at, where) == (rows_before + 2, column)
    assert detail in why


@pytest.mark.parametrize("neighbours", [b"", b"bad,a,1,2\n"], ids=["at once", "one by one"])
@pytest.mark.parametrize(
    ("text", "microsecond", "cut_off_ns"),
    [
        (b"2024-05-01T00:00:00.1234567Z", 123_456, 700),
        (b"2024-05-01T00:00:00.123456789Z", 123_456, 789),
        (b"2024-05-01T00:00:00.1234560Z", 123_456, 0),
        (b"1969-12-31T23:59:59.9999999Z", 999_999, 900),
    ],
)
def test_nanoseconds_are_cut_off_and_reported(
    file: Path, text: bytes, microsecond: int, cut_off_ns: int, neighbours: bytes
) -> None:
    file.write_bytes(HEADER + text + b",a,1,2\n" + neighbours)
    (parsed,) = read_all(file, 100)
    assert [row["time"].microsecond for row in rows_of([parsed])] == [microsecond]  # type: ignore[attr-defined]
    assert (parsed.cut_off_ns.tolist() if parsed.cut_off_ns is not None else [0]) == [cut_off_ns]


def test_times_with_seven_fractional_digits_are_parsed_by_arrow(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telemetry.formats.csv._parse_row_by_row", None)
    row = b"2012-10-12 00:30:00.0000000,a, 0.1 ,Null\r\n"
    file.write_bytes(HEADER + row * 3)
    columns = replace(COLUMNS, null_values=("", "Null"), times=TimeFormat(timezone="Europe/London"))
    assert len(rows_of(read_all(file, 100, columns))) == 3


def peak_bytes(path: Path) -> int:
    """Read a file in one batch; return the peak memory of Python and numpy meanwhile."""
    source = Source.local(path)
    (part,) = FORMAT.cut(source, 10_000_000, COLUMNS)
    tracemalloc.start()
    try:
        for _ in FORMAT.read(source, part.place, COLUMNS):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "line",
    [b'2024-05-01T00:00:00Z,"two\n\nlines",1,2\n', b'2024-05-01T00:00:00Z,"a"b,1,2\n', b"x\n", b'"\n', b'x","y\n'],
    ids=["newlines in quotes", "text behind a quote", "rubbish", "quotes", "open quotes"],
)
def test_memory_is_limited_to_a_piece_whatever_the_file_contains(
    file: Path, line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telemetry.formats.rows.ROWS_AT_ONCE", 500)
    monkeypatch.setattr("telemetry.formats.quoting.MULTILINE_MAX_BYTES", 4 << 10)
    monkeypatch.setattr(borders, "PIECE_BYTES", 8 << 10)
    monkeypatch.setattr(borders, "READ_BYTES", 16 << 10)
    file.write_bytes(HEADER + line * ((32 << 10) // len(line)))
    few = peak_bytes(file)
    file.write_bytes(HEADER + line * ((256 << 10) // len(line)))
    assert peak_bytes(file) < 1.5 * few


def test_excess_cells_of_a_row_are_counted_but_not_kept_in_memory(file: Path) -> None:
    file.write_bytes(HEADER + GOOD + b"12," * 400_000 + b"\n" + b'"12",' * 10 + b"\n" + GOOD)
    assert peak_bytes(file) < 16 << 20
    parsed = read_all(file, 10)
    problems = [
        (3, "", "expected 4 cells as in the header, got 400001"),
        (4, "", "expected 4 cells as in the header, got 11"),
    ]
    assert (len(rows_of(parsed)), rejects_of(parsed)) == (2, problems)


def test_a_sample_is_small_however_long_the_rows_are(file: Path) -> None:
    file.write_bytes(HEADER + GOOD[:-1] + b"," * (8 << 20) + b"\n" + GOOD)
    source = Source.local(file)
    first, second = FORMAT.cut(source, 1, COLUMNS)
    assert list(FORMAT.sample(source, first, COLUMNS, 4_000)) == []
    assert [part.table.num_rows for part in FORMAT.sample(source, second, COLUMNS, 4_000)] == [1]


def test_a_file_whose_first_record_exceeds_the_sample_is_accepted(file: Path) -> None:
    file.write_bytes(HEADER + b'2024-05-01T00:00:00Z,"' + b"x" * 300_000 + b'",1,2\n' + GOOD)
    FORMAT.check(Source.local(file), COLUMNS)
    parsed = read_all(file, 10)
    assert len(rows_of(parsed)) == 1
    assert [(line, column) for line, column, _ in rejects_of(parsed)] == [(2, "device")]


def test_windows_line_ends_and_blank_lines(file: Path) -> None:
    file.write_bytes((HEADER + GOOD + b"\n" + b"bad,a,1,2\n" + GOOD).replace(b"\n", b"\r\n"))
    parsed = read_all(file, 100)
    assert len(rows_of(parsed)) == 2
    assert [line for line, *_ in rejects_of(parsed)] == [4]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (HEADER, "the file has a header but no rows"),
        (
            b"time,device,load\n2024-05-01T00:00:00Z,a,1\n",
            r":1: missing column 'heat'; the file has the columns time, device, load",
        ),
        (b"time,device,load,heat,load\n", r":1: column 'load' occurs more than once"),
        (b"\x89PNG\r\n\x1a\n", "the header is not valid utf-8: byte 0 is 0x89"),
        (b"PAR1\0\0\0", "not a CSV file: byte 4 is a NUL character"),
        ((HEADER + GOOD).replace(b"\n", b"\r"), ":1: expected lines that end in LF or CR LF"),
        ("time,device".encode("utf-16"), ":1: expected UTF-8 or a single-byte encoding, got UTF-16"),
        (HEADER + b"01/05/2024,a,1,2\n02/05/2024,a,1,2\n", r":2: column 'time': expected a time .*, got '01/05/2024'"),
        (HEADER + b"2024-05-01T00:00:00,a,1,2\n", r":2: column 'time': expected a time with a UTC offset"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_refused_with_file_line_and_column(
    file: Path, content: bytes, problem: str
) -> None:
    file.write_bytes(content)
    with pytest.raises(BadInput, match=problem) as refused:
        FORMAT.check(Source.local(file), COLUMNS)
    assert str(refused.value).startswith(str(file))


def test_a_file_with_one_bad_row_is_accepted(file: Path) -> None:
    file.write_bytes(HEADER + b"bad,a,1,2\n" + GOOD)
    FORMAT.check(Source.local(file), COLUMNS)
    assert len(rows_of(read_all(file, 100))) == 1


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.csv: no such file"):
        FORMAT.check(Source.local(tmp_path / "nowhere.csv"), COLUMNS)
    with pytest.raises(BadInput, match="expected a file, got a directory"):
        FORMAT.check(Source.local(tmp_path), COLUMNS)


def test_a_header_that_is_longer_than_the_sample_is_refused(file: Path) -> None:
    file.write_bytes(b"time,device,load,heat," + b",".join(b"column%d" % n for n in range(30_000)) + b"\n" + GOOD)
    with pytest.raises(BadInput, match=r"readings\.csv:1: the header must have fewer than 262,144 bytes"):
        FORMAT.check(Source.local(file), COLUMNS)


def test_a_header_may_have_quoted_line_ends(file: Path) -> None:
    file.write_bytes("time,a\u2028b,device,load,heat\n".encode() + GOOD.replace(b"Z,", b"Z,x,"))
    FORMAT.check(Source.local(file), COLUMNS)
    assert rows_of(read_all(file, 10))[0]["device"] == "a"


def test_slices_of_long_records_are_limited_by_bytes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(borders, "SCAN_BYTES", 64)
    monkeypatch.setattr(borders, "SLICE_MAX_BYTES", 200)
    file.write_bytes(HEADER + GOOD * 50)
    slices = list(FORMAT.cut(Source.local(file), 1000, COLUMNS))
    assert len(slices) > 5
    assert all(part.place["length"] < 300 for part in slices)
    assert sum(part.row_count for part in slices) == len(rows_of(read_all(file, 1000))) == 50


def test_a_file_that_changed_after_it_was_cut_is_refused(file: Path) -> None:
    file.write_bytes(HEADER + GOOD)
    source = Source.local(file)
    stamp = source.stamp()
    source.require_unchanged(stamp)
    file.write_bytes(HEADER + GOOD.replace(b"2024", b"2025"))  # the same size
    with pytest.raises(BadInput, match="the file has changed"):
        source.require_unchanged(stamp)


@pytest.mark.parametrize(
    ("name", "format_", "compression"),
    [
        ("A.CSV", "csv", ""),
        ("a.csv.gz", "csv", "gzip"),
        ("a.b.jsonl.ZST", "ndjson", "zstd"),
        ("a.ndjson", "ndjson", ""),
        ("a.pq", "parquet", ""),
        ("a.arrows", "arrow", ""),
    ],
)
def test_the_format_is_recognised_by_the_ending(name: str, format_: str, compression: str) -> None:
    written = recognise(name)
    assert (written.format.name, written.compression) == (format_, compression)


@pytest.mark.parametrize("name", ["a.xlsx", "csv", "a.gz", ".csv.bz2"])
def test_an_unknown_ending_is_refused(name: str) -> None:
    with pytest.raises(
        BadInput, match=r"unknown file format; expected a name ending in \.csv, \.ndjson.*with \.gz or \.zst"
    ):
        recognise(name)


def test_a_signal_during_reading_always_reaches_its_handler(file: Path) -> None:
    # Numbers are no times of the first kind that is tried, so each piece is read with an error first.
    file.write_bytes(HEADER + b"1714521600.5,a,1.5,20\n" * 2000)
    # `put` of this queue is reentrant, as the handler of a signal needs it.
    heard: SimpleQueue[int] = SimpleQueue()
    is_over = threading.Event()
    received = 0

    def send() -> None:
        nonlocal received
        try:
            for _ in range(100):
                os.kill(os.getpid(), signal.SIGTERM)
                heard.get(timeout=DEADLINE_S)
                received += 1
        finally:
            is_over.set()

    before = signal.signal(signal.SIGTERM, lambda number, _: heard.put(number))
    sender = threading.Thread(target=send)
    try:
        sender.start()
        while not is_over.is_set():
            read_all(file, 1000)
        sender.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == 100
