"""Parquet's footer and page headers that are damaged, or made to take much memory."""

import base64
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pytest_django.fixtures import Settings

from telemetry.formats import BadInput, Columns, Source
from telemetry.formats.pages import DELTA_BINARY_PACKED, DELTA_BYTE_ARRAY, PLAIN, Footer, Page, pages, rows_within
from telemetry.formats.parquet import FORMAT
from tests.unit.test_arrow import shared_schema

COLUMNS = Columns("time", ("device",), ("load",))


def varint(number: int) -> bytes:
    head = b""
    while number > 0x7F:
        head += bytes([number & 0x7F | 0x80])
        number >>= 7
    return head + bytes([number])


def structs(field_delta: int, element: bytes, count: int) -> bytes:
    """Return a field of Thrift's compact protocol that is a list of structs."""
    return bytes([field_delta << 4 | 9, 0xFC]) + varint(count) + element * count


def file_with(path: Path, footer: bytes, length: int | None = None) -> Source:
    end = struct.pack("<I", len(footer) if length is None else length) + b"PAR1"
    path.write_bytes(b"PAR1" + footer + end)
    return Source.local(path)


VERSION = b"\x15\x02"
COLUMN_CHUNK = b"\x26\x00\x00"
ROW_GROUP = structs(1, COLUMN_CHUNK, 1) + b"\x16\x00\x16\x00\x00"


@pytest.mark.parametrize(
    "footer",
    [
        VERSION + structs(3, structs(1, COLUMN_CHUNK, 1_000_000) + b"\x16\x00\x16\x00\x00", 1) + b"\x00",
        VERSION + structs(3, ROW_GROUP, 500_000) + b"\x00",
        VERSION + b"\x19\xfc" + varint(5_000_000) + b"\x48\x00\x00" * 500_000,
        VERSION + bytes([1 << 4 | 9, 0xF8]) + varint(5_000_000) + b"\x00" * 5_000_000,
    ],
    ids=["column chunks", "row groups", "schema elements", "strings"],
)
def test_a_footer_that_takes_much_memory_in_arrow_is_refused_before_arrow_reads_it(
    tmp_path: Path, footer: bytes
) -> None:
    with pytest.raises(
        BadInput, match="not a valid Parquet file: the metadata takes more than 134,217,728 bytes of memory"
    ):
        FORMAT.check(file_with(tmp_path / "a.parquet", footer), COLUMNS)


@pytest.mark.parametrize(
    ("footer", "length", "problem"),
    [
        (b"", 0, "not a valid Parquet file"),
        (VERSION, 1 << 31, "the footer has 2,147,483,648 bytes, the limit is 8,388,608"),
        (VERSION, 5000, "the footer is longer than the file"),
        (VERSION + b"\x19\xfc" + varint(1 << 40), None, "the metadata is cut off"),
        (VERSION + b"\x3c" * 40, None, "nested more than 16 levels deep"),
        (VERSION + b"\x1d", None, "unknown type 13"),
        (VERSION + bytes([3 << 4 | 9, 0x18]) + b"\x00", None, "expected a list of structs"),
        (b"\x16" + b"\xff" * 12, None, "more than 64 bits"),
    ],
)
def test_a_damaged_footer_is_refused(tmp_path: Path, footer: bytes, length: int | None, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        FORMAT.check(file_with(tmp_path / "a.parquet", footer, length), COLUMNS)


def test_the_arrow_schema_in_a_footer_is_checked(tmp_path: Path) -> None:
    schema = base64.b64encode(shared_schema(30))
    pair = b"\x18\x0cARROW:schema\x18" + varint(len(schema)) + schema + b"\x00"
    source = file_with(tmp_path / "a.parquet", VERSION + structs(4, pair, 1) + b"\x00")
    with pytest.raises(BadInput, match="the schema takes more than 67,108,864 bytes of memory"):
        FORMAT.check(source, COLUMNS)


def write(path: Path, labels: list[str], **options: object) -> Source:
    count = len(labels)
    time = pa.array(np.arange(count), pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"time": time, "device": labels, "load": np.arange(count, dtype=float)}), path, **options)
    return Source.local(path)


def test_a_row_group_with_a_negative_number_of_rows_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", ["a"] * 77)
    content = Path(source.path).read_bytes()
    begin = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    rows = bytes([0x16]) + varint(2 * 77)  # an integer is twice itself, or one less than twice the negative one
    assert rows in content[begin:]
    Path(source.path).write_bytes(content[:begin] + content[begin:].replace(rows, bytes([0x16]) + varint(2 * 77 - 1)))
    with pytest.raises(BadInput, match=r"negative number of rows|not a valid Parquet file"):
        list(FORMAT.cut(source, 10, COLUMNS))


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY", None])
def test_pages_of_every_encoding_are_found_and_read(
    tmp_path: Path, version: str, compression: str, encoding: str | None
) -> None:
    labels = [f"{'x' * 50}{n % 700}" for n in range(20_000)]
    column_encoding = {"device": encoding} if encoding else None
    source = write(
        tmp_path / "a.parquet",
        labels,
        compression=compression,
        data_page_version=version,
        data_page_size=10_000,
        use_dictionary=encoding is None,
        column_encoding=column_encoding,
        row_group_size=7000,
    )
    metadata = pq.ParquetFile(source.path).metadata
    with source.open() as file:
        footer = Footer(file)
        for group in range(metadata.num_row_groups):
            for number in range(3):
                chunk = metadata.row_group(group).column(number)
                found = list(pages(file, footer.chunk(group, number), chunk.path_in_schema))
                assert sum(page.value_count for page in found if page.is_data) == chunk.num_values
                assert sum(page.unpacked_bytes for page in found) <= chunk.total_uncompressed_size
    rows = [
        row
        for part in FORMAT.cut(source, 3000, COLUMNS)
        for parsed in FORMAT.read(source, part.place, COLUMNS)
        for row in parsed.table["device"].to_pylist()
    ]
    assert rows == labels


def page(values: int, size: int, encoding: int = PLAIN, *, is_data: bool = True) -> Page:
    return Page(0, size, values, encoding, is_data)


def test_few_rows_are_decoded_at_once_if_texts_are_long() -> None:
    assert rows_within([page(100, 1000)] * 50, 1000, 1 << 20) == 1000
    assert rows_within([page(1, 1000)] * 5000, 1000, 10_000) == 7, "they touch one page more"
    assert rows_within([page(1000, 10), page(1, 900), page(1, 900), page(1000, 10)], 1000, 1000) == 1
    assert rows_within([page(100, 1000, DELTA_BYTE_ARRAY)] * 5, 1000, 40_000) == 10
    assert rows_within([page(10, 1000, 8), page(10, 5000, is_data=False)] * 5, 1000, 1000) == 1000
    assert rows_within([], 1000, 1000) == 1000


def test_values_that_take_no_bytes_in_the_file_are_counted() -> None:
    assert page(1 << 30, 20, DELTA_BINARY_PACKED).memory_bytes == 8 << 30
    assert page(1 << 30, 20).memory_bytes == 20


def test_columns_that_are_decoded_separately_are_joined(tmp_path: Path, settings: Settings) -> None:
    settings.INGEST_WORKER_MEMORY_BYTES = 1 << 20
    count, names = 3000, [f"v{n}" for n in range(40)]
    columns = {name: np.arange(count) * (n + 1.0) for n, name in enumerate(names)}
    time = pa.array(np.arange(count), pa.timestamp("us", "UTC"))
    devices = ["a", "b", ""] * 1000
    pq.write_table(pa.table({**columns, "time": time, "device": devices}), tmp_path / "a.parquet")
    source = Source.local(tmp_path / "a.parquet")
    wide = Columns("time", ("device",), tuple(reversed(names)))
    slices = list(FORMAT.cut(source, 2000, wide))
    assert max(part.row_count for part in slices) == (1 << 18) // 9 // 40
    parsed = [piece for part in slices for piece in FORMAT.read(source, part.place, wide)]
    assert [reject.line for piece in parsed for reject in piece.rejects] == list(range(3, 3001, 3))
    read = pa.concat_tables([piece.table for piece in parsed])
    kept = np.arange(count) % 3 < 2
    assert all(np.array_equal(read[name].to_numpy(), columns[name][kept]) for name in names)


def test_a_page_that_is_too_large_is_refused(tmp_path: Path, settings: Settings) -> None:
    settings.INGEST_WORKER_MEMORY_BYTES = 1 << 20
    source = write(tmp_path / "a.parquet", ["x" * 500_000], compression="zstd", use_dictionary=False)
    (part,) = FORMAT.cut(source, 10, COLUMNS)
    with pytest.raises(BadInput, match=r"a page of column 'device' takes 5.* bytes of memory, the limit is 262,144"):
        list(FORMAT.read(source, part.place, COLUMNS))
