"""Strict CSV: no line is lost for any bytes and any slices, and Arrow and Python agree."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.formats import Columns, Parsed, Source, TextFormat, borders, quoting
from telemetry.formats import csv as csv_format
from telemetry.formats.csv import FORMAT
from telemetry.formats.quoting import Dialect

HEADER = b"time,sensor,temp\n"
GOOD = (b"2024-05-01T00:00:00Z,a,1", b'"2024-05-01T00:00:00Z","b",2', b"2024-05-01 00:00:00Z , c , 3 ")
PARTS = (
    *(b'"', b'""', b",", b"\n", b"\r\n", b"\r", b" ", b"\t", b"\\", b'\\"', b"x", b"\xff", b"\0", b"1"),
    *(b'"a\nb"', b'a"b', b'"a"b', b'x","y', b"\n\n", b'"\n', b'\n"', b"-999", b"NaN"),
    *(line + b"\n" for line in GOOD),
    *GOOD,
)
any_bytes = st.one_of(st.lists(st.sampled_from(PARTS), max_size=14).map(b"".join), st.binary(max_size=40))
dialects = st.builds(Dialect, st.sampled_from(",;\t"), st.sampled_from(("", "\\")))


def cut_lines(data: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return [line for line in lines if line]


def ends_by_trying(data: bytes, dialect: Dialect) -> list[int]:
    """Return the ends of records by their definition: the fewest lines that are well-formed together, otherwise one."""
    lines, ends, first = cut_lines(data), [], 0
    while first < len(lines):
        count = next((n for n in range(1, len(lines) - first + 1) if is_whole(lines[first : first + n], dialect)), 1)
        first += count
        ends.append(len(b"".join(lines[:first])))
    return ends


def is_whole(lines: list[bytes], dialect: Dialect) -> bool:
    """Return True if Python's csv reads lines as one record, after removing what it has no option for."""
    text = b"".join(lines).decode("latin-1").rstrip("\r\n")
    if sum(map(len, lines)) > quoting.MULTILINE_MAX_BYTES and len(lines) > 1:
        return False
    try:
        rows = list(csv.reader([plain(text, dialect)], delimiter=dialect.delimiter, strict=True))
    except csv.Error:
        return False
    return len(rows) <= 1


def plain(text: str, dialect: Dialect) -> str:
    """Return a record without escapes, and without blanks between quotes and delimiters."""
    made, in_quotes, at_begin, position = "", False, True, 0
    while position < len(text):
        character = text[position]
        escaped = (
            dialect.escape and character == dialect.escape and text[position + 1 : position + 2] not in ("", "\r", "\n")
        )
        if escaped:
            made, position, at_begin = made + "e", position + 2, False
            continue
        if character == '"' and in_quotes:
            rest = text[position + 1 :]
            if rest.startswith('"'):
                made, position = made + '""', position + 2
                continue
            in_quotes = False
            behind = rest.lstrip(" \t".replace(dialect.delimiter, ""))
            made, position = (
                made + '"',
                position + 1 + (len(rest) - len(behind) if behind[:1] in ("", dialect.delimiter) else 0),
            )
            continue
        if character == '"' and at_begin:
            in_quotes = True
        if at_begin and character in " \t".replace(dialect.delimiter, "") and not in_quotes:
            position += 1
            continue
        at_begin = character == dialect.delimiter and not in_quotes
        made += "n" if character in "\r\n\0" else character
        position += 1
    return made


@contextmanager
def limited(limit_bytes: int) -> Iterator[None]:
    """Limit the length of records of several lines for the length of a block."""
    before = quoting.MULTILINE_MAX_BYTES
    quoting.MULTILINE_MAX_BYTES = limit_bytes
    try:
        yield
    finally:
        quoting.MULTILINE_MAX_BYTES = before


limits = st.sampled_from((6, 12, 1 << 20))


@settings(max_examples=300, deadline=None)
@given(data=any_bytes, dialect=dialects, limit_bytes=limits)
def test_records_end_as_defined(data: bytes, dialect: Dialect, limit_bytes: int) -> None:
    data = data.replace(b",", dialect.delimiter.encode())
    with limited(limit_bytes):
        assert dialect.find(data, is_last=True).ends.tolist() == ends_by_trying(data, dialect)


@settings(max_examples=200, deadline=None)
@given(data=any_bytes, dialect=dialects, limit_bytes=limits)
def test_records_found_in_a_prefix_are_found_in_the_whole(data: bytes, dialect: Dialect, limit_bytes: int) -> None:
    with limited(limit_bytes):
        whole = dialect.find(data, is_last=True).ends.tolist()
        for length in range(len(data)):
            found = dialect.find(data[:length], is_last=False).ends.tolist()
            assert found == whole[: len(found)]


@settings(max_examples=200, deadline=None)
@given(data=any_bytes, dialect=dialects, limit_bytes=limits)
def test_each_part_between_records_has_the_same_records(data: bytes, dialect: Dialect, limit_bytes: int) -> None:
    with limited(limit_bytes):
        whole = dialect.find(data, is_last=True).ends.tolist()
        for first in range(len(whole)):
            for last in range(first, len(whole)):
                begin = whole[first - 1] if first else 0
                found = dialect.find(data[begin : whole[last]], is_last=True)
                assert (found.ends + begin).tolist() == whole[first : last + 1]


@settings(max_examples=200, deadline=None)
@given(
    cells=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5), min_size=1, max_size=4)
)
def test_cells_written_by_python_are_read(cells: list[str]) -> None:
    record = ",".join('"{}"'.format(cell.replace('"', '""')) for cell in cells).encode() + b"\r\n"
    assert Dialect().find(record, is_last=True).ends.tolist() == [len(record)]
    assert [cell.decode() for cell in Dialect().split(record)] == cells
    escaped = ",".join('"{}"'.format(cell.replace("\\", "\\\\").replace('"', '\\"')) for cell in cells).encode()
    assert [cell.decode() for cell in Dialect(escape="\\").split(escaped)] == cells


def test_unclosed_quotes_take_linear_time() -> None:
    """Each line opens a quote for all that follow; searching from each line would take hours."""
    data = b'x","y\n' * 300_000
    assert Dialect().find(data, is_last=True).count == 300_000


def test_a_long_line_of_quoted_cells_takes_linear_time() -> None:
    """Searching the end of the line after each cell would take hours."""
    data = b'"12",' * 3_000_000 + b"\n"
    assert Dialect().find(data, is_last=True).count == 1


@contextmanager
def one_by_one() -> Iterator[None]:
    """Parse rows with Python only, for the length of a block."""
    at_once = csv_format._parse_at_once
    csv_format._parse_at_once = lambda *_: None
    try:
        yield
    finally:
        csv_format._parse_at_once = at_once


def read_all(path: Path, columns: Columns, batch_rows: int = 100) -> list[Parsed]:
    source = Source.local(path)
    slices = FORMAT.cut(source, batch_rows, columns)
    return [piece for part in slices for piece in FORMAT.read(source, part.place, columns)]


def told(parsed: list[Parsed]) -> tuple[list[str], list[tuple[int, str, str, str]]]:
    rows = chain.from_iterable(part.table.to_pylist() for part in parsed)
    rejects = [(each.line, each.column, each.detail, each.raw) for part in parsed for each in part.rejects]
    return list(map(repr, rows)), rejects  # as text: a NaN is no equal of itself


columns_of_any_kind = st.builds(
    lambda text, keep_nan: Columns("time", ("sensor",), ("temp",), ("", "-999"), text=text, keep_nan=keep_nan),
    st.builds(TextFormat, encoding=st.sampled_from(("utf-8", "cp1252")), escape=st.sampled_from(("", "\\"))),
    st.booleans(),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "any.csv"


@settings(max_examples=250, deadline=None)
@given(
    data=any_bytes,
    columns=columns_of_any_kind,
    batch_rows=st.integers(1, 8),
    block_bytes=st.sampled_from((1, 7, 40, 1 << 20)),
)
def test_each_line_is_parsed_rejected_or_blank_for_any_slices(
    file: Path, data: bytes, columns: Columns, batch_rows: int, block_bytes: int
) -> None:
    file.write_bytes(HEADER + data)
    dialect = Dialect(escape=columns.text.escape)
    whole = read_all(file, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(borders, "SCAN_BYTES", block_bytes)
        patch.setattr(borders, "PIECE_BYTES", block_bytes)
        rows, rejects = told(read_all(file, columns, batch_rows))
    assert (rows, rejects) == told(whole)
    with one_by_one():
        assert (rows, rejects) == told(read_all(file, columns))

    ends = [0, *dialect.find(data, is_last=True).ends.tolist()]
    records = [data[begin:end] for begin, end in pairwise(ends)]
    raws = {line: raw for line, _, _, raw in rejects}
    line, read = 2, 0
    for record in records:
        if line in raws:
            assert raws[line] == as_shown(record, columns.text.encoding)
        else:
            read += not dialect.is_blank(record)
        line += record.count(b"\n")
    assert (read, len(raws)) == (len(rows), len(rejects))


def as_shown(record: bytes, encoding: str) -> str:
    text = record.rstrip(b"\r\n").decode(encoding, "surrogateescape")
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", "\\x00")
