"""Checks of Parquet's footer and page headers before Arrow reads them; nothing is unpacked or decoded here.

https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from telemetry.formats.memory import message_max_bytes, metadata_max_bytes, page_max_bytes
from telemetry.formats.messages import messages, require_small_schema
from telemetry.formats.thrift import I64, LIST, STRUCT, Reader, TruncatedError

MAGIC = b"PAR1"
FOOTER_END_BYTES = 8
ARROW_SCHEMA = b"ARROW:schema"
# Field numbers in the footer, its row groups, their column chunks and the metadata of these, and in page headers.
ROW_GROUPS, KEY_VALUES = 4, 5
COLUMNS, METADATA = 1, 3
VALUE_COUNT, DATA_OFFSET, DICTIONARY_OFFSET = 5, 9, 11
UNPACKED_SIZE, PACKED_SIZE, DATA_HEADER, DICTIONARY_HEADER, DATA_HEADER_V2 = 2, 3, 5, 7, 8
ENCODING_FIELD = {DATA_HEADER: 2, DICTIONARY_HEADER: 2, DATA_HEADER_V2: 4}
# Encodings: with DELTA_*, a page of a few bytes may have any number of values, each as long as the page.
PLAIN, DELTA_BINARY_PACKED, DELTA_LENGTH_BYTE_ARRAY, DELTA_BYTE_ARRAY = 0, 5, 6, 7
DELTA = (DELTA_BINARY_PACKED, DELTA_LENGTH_BYTE_ARRAY, DELTA_BYTE_ARRAY)
HEADER_BYTES, HEADER_MAX_BYTES = 1 << 10, 1 << 20


class Chunk(NamedTuple):
    """A column chunk, as the footer describes it."""

    value_count: int
    data_offset: int
    dictionary_offset: int

    @property
    def begin(self) -> int:
        """The offset of its first page."""
        return self.dictionary_offset if 0 < self.dictionary_offset < self.data_offset else self.data_offset


class Footer:
    """The column chunks of a file; they are read here because pyarrow ends the process if one is damaged.

    Raises:
        pyarrow.ArrowInvalid: the footer is damaged, or Arrow would need too much memory for it.
    """

    def __init__(self, file: pa.NativeFile) -> None:
        self._row_groups: list[list[Chunk]] = []
        reader = Reader(_footer(file), message_max_bytes() // 2)
        for number, kind in reader.fields():
            if (number, kind) == (KEY_VALUES, LIST):
                _require_small_key_values(reader)
            elif (number, kind) == (ROW_GROUPS, LIST):
                self._row_groups = [_row_group(reader) for _ in reader.large_structs()]
            else:
                reader.skip(kind)

    def chunk(self, row_group: int, column: int) -> Chunk:
        """Return a column chunk.

        Raises:
            pyarrow.ArrowInvalid: the footer has no such column chunk.
        """
        try:
            return self._row_groups[row_group][column]
        except IndexError:
            raise pa.ArrowInvalid(f"row group {row_group} does not exist or has too few columns") from None


def _row_group(reader: Reader) -> list[Chunk]:
    chunks: list[Chunk] = []
    for number, kind in reader.fields():
        if (number, kind) == (COLUMNS, LIST):
            chunks = [_chunk(reader) for _ in reader.large_structs()]
        else:
            reader.skip(kind, 1)
    return chunks


def _chunk(reader: Reader) -> Chunk:
    numbers = {VALUE_COUNT: 0, DATA_OFFSET: 0, DICTIONARY_OFFSET: 0}
    for number, kind in reader.fields():
        if (number, kind) != (METADATA, STRUCT):
            reader.skip(kind, 2)
            continue
        for inner, inner_kind in reader.fields():
            if inner in numbers and inner_kind == I64:  # fields of other types are skipped, as in Arrow
                numbers[inner] = reader.integer()
            else:
                reader.skip(inner_kind, 3)
    return Chunk(numbers[VALUE_COUNT], numbers[DATA_OFFSET], numbers[DICTIONARY_OFFSET])


def _require_small_key_values(reader: Reader) -> None:
    for key, value in _pairs(reader):
        if key == ARROW_SCHEMA:
            _require_small_arrow_schema(value)


def _footer(file: pa.NativeFile) -> bytes:
    size_bytes = file.size()
    file.seek(max(size_bytes - FOOTER_END_BYTES, 0))
    end = file.read(FOOTER_END_BYTES)
    if end[4:] != MAGIC:
        raise pa.ArrowInvalid(f"the file does not end with {MAGIC.decode()}")
    length = int.from_bytes(end[:4], "little")
    if length > metadata_max_bytes():
        raise pa.ArrowInvalid(
            f"the footer has {length:,} bytes, the limit is {metadata_max_bytes():,} "
            "(1/64 of INGEST_WORKER_MEMORY_BYTES); split the file"
        )
    if length > size_bytes - FOOTER_END_BYTES:
        raise pa.ArrowInvalid("the footer is longer than the file")
    file.seek(size_bytes - FOOTER_END_BYTES - length)
    return bytes(file.read(length))


def _pairs(reader: Reader) -> Iterator[tuple[bytes, bytes]]:
    for _ in reader.elements():
        pair = {number: reader.binary() for number, _ in reader.fields()}
        yield pair.get(1, b""), pair.get(2, b"")


def _require_small_arrow_schema(encoded: bytes) -> None:
    try:
        data = base64.b64decode(encoded)
    except binascii.Error as error:
        raise pa.ArrowInvalid(f"the metadata {ARROW_SCHEMA.decode()} is damaged: {error}") from None
    for message in messages(pa.BufferReader(data), 0, len(data)):
        require_small_schema(message)


@dataclass(frozen=True)
class Page:
    """A page of a column chunk, as its header describes it."""

    packed_bytes: int
    unpacked_bytes: int
    value_count: int
    encoding: int
    is_data: bool

    @property
    def memory_bytes(self) -> int:
        """The memory that decoding it takes, in bytes."""
        decoded_bytes = 8 * self.value_count if self.encoding in DELTA else 0
        return self.packed_bytes + max(self.unpacked_bytes, decoded_bytes)


def pages(file: pa.NativeFile, chunk: Chunk, name: str) -> Iterator[Page]:
    """Yield the pages of a column chunk.

    Raises:
        pyarrow.ArrowInvalid: a page takes too much memory, or its header is damaged.
    """
    at, left = chunk.begin, chunk.value_count
    while left > 0:
        page, header_bytes = _page(file, at)
        if page.memory_bytes > page_max_bytes():
            raise pa.ArrowInvalid(
                f"a page of column {name!r} takes {page.memory_bytes:,} bytes of memory, the limit is "
                f"{page_max_bytes():,} (a quarter of INGEST_WORKER_MEMORY_BYTES); write it with smaller pages"
            )
        yield page
        at += header_bytes + page.packed_bytes
        left -= page.value_count if page.is_data else 0


def _page(file: pa.NativeFile, at: int) -> tuple[Page, int]:
    length = HEADER_BYTES
    while True:
        file.seek(at)
        reader = Reader(file.read(length), HEADER_MAX_BYTES)
        try:
            return _read_page(reader), reader.at
        except TruncatedError:
            if length >= HEADER_MAX_BYTES:
                raise
            length *= 32


def _read_page(reader: Reader) -> Page:
    sizes = {UNPACKED_SIZE: 0, PACKED_SIZE: 0}
    value_count, encoding, is_data = 0, PLAIN, False
    for number, kind in reader.fields():
        if number in sizes:
            sizes[number] = reader.integer()
        elif number in ENCODING_FIELD:
            is_data = number != DICTIONARY_HEADER
            for inner, inner_kind in reader.fields():
                if inner == 1:
                    value_count = reader.integer()
                elif inner == ENCODING_FIELD[number]:
                    encoding = reader.integer()
                else:
                    reader.skip(inner_kind)
        else:
            reader.skip(kind)
    if min(*sizes.values(), value_count) < 0 or (is_data and value_count == 0 and sizes[PACKED_SIZE] == 0):
        raise pa.ArrowInvalid("a page header is damaged")
    return Page(sizes[PACKED_SIZE], sizes[UNPACKED_SIZE], value_count, encoding, is_data)


def rows_within(of_column: list[Page], rows: int, max_bytes: int) -> int:
    """Return how many rows of a column of texts, at most `rows`, may be decoded at once.

    Consecutive rows take no more memory than the pages that they touch. With DELTA_BYTE_ARRAY, where a text may share
    its beginning with the one before, each row may take as much as its page, several times while a buffer grows.
    """
    shared = [page.unpacked_bytes for page in of_column if page.encoding == DELTA_BYTE_ARRAY]
    if shared:
        rows = max(1, min(rows, max_bytes // 4 // max(1, *shared)))
    data = [page for page in of_column if page.is_data]
    ends = np.cumsum([page.value_count for page in data])
    sizes = np.cumsum([0, *(page.unpacked_bytes if page.encoding in (PLAIN, *DELTA) else 0 for page in data)])
    while rows > 1:
        last = np.minimum(np.searchsorted(ends, ends + rows - 1), len(data) - 1)  # that rows from each one's end touch
        if (sizes[last + 1] - sizes[:-1]).max(initial=0) <= max_bytes:
            break
        rows //= 2
    return rows
