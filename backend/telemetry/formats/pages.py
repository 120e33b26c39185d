"""Parquet's footer and page headers, looked at before Arrow reads them: nothing is unpacked or decoded here.

https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from telemetry.formats.memory import message_max_bytes, metadata_max_bytes, page_max_bytes
from telemetry.formats.messages import messages, require_modest_schema
from telemetry.formats.thrift import LIST, Reader, TruncatedError

MAGIC = b"PAR1"
FOOTER_END_BYTES = 8
ARROW_SCHEMA = b"ARROW:schema"
# The numbers of fields in the footer, and in a page's header.
KEY_VALUES = 5
UNPACKED_SIZE, PACKED_SIZE, DATA_HEADER, DICTIONARY_HEADER, DATA_HEADER_V2 = 2, 3, 5, 7, 8
ENCODING_FIELD = {DATA_HEADER: 2, DICTIONARY_HEADER: 2, DATA_HEADER_V2: 4}
# Encodings: a page of a few bytes may hold any number of values of DELTA_*, and each may be as long as the page.
PLAIN, DELTA_BINARY_PACKED, DELTA_LENGTH_BYTE_ARRAY, DELTA_BYTE_ARRAY = 0, 5, 6, 7
DELTA = (DELTA_BINARY_PACKED, DELTA_LENGTH_BYTE_ARRAY, DELTA_BYTE_ARRAY)
HEADER_BYTES, HEADER_MAX_BYTES = 1 << 10, 1 << 20


def require_modest_footer(file: pa.NativeFile) -> None:
    """Refuse a footer of which Arrow would make too much.

    Raises:
        pyarrow.ArrowInvalid: it would take too much memory, or is damaged.
    """
    reader = Reader(_footer(file), message_max_bytes() // 2)
    for number, kind in reader.fields():
        if number == KEY_VALUES and kind == LIST:
            for key, value in _pairs(reader):
                if key == ARROW_SCHEMA:
                    _require_modest_arrow_schema(value)
        else:
            reader.skip(kind)


def _footer(file: pa.NativeFile) -> bytes:
    size_bytes = file.size()
    file.seek(max(size_bytes - FOOTER_END_BYTES, 0))
    end = file.read(FOOTER_END_BYTES)
    if end[4:] != MAGIC:
        raise pa.ArrowInvalid(f"it does not end with {MAGIC.decode()}")
    length = int.from_bytes(end[:4], "little")
    if length > metadata_max_bytes():
        raise pa.ArrowInvalid(f"its footer has {length:,} bytes, allowed: {metadata_max_bytes():,}; write it in parts")
    if length > size_bytes - FOOTER_END_BYTES:
        raise pa.ArrowInvalid("its footer is longer than the file")
    file.seek(size_bytes - FOOTER_END_BYTES - length)
    return bytes(file.read(length))


def _pairs(reader: Reader) -> Iterator[tuple[bytes, bytes]]:
    for _ in reader.elements():
        pair = {number: reader.binary() for number, _ in reader.fields()}
        yield pair.get(1, b""), pair.get(2, b"")


def _require_modest_arrow_schema(encoded: bytes) -> None:
    try:
        data = base64.b64decode(encoded)
    except binascii.Error as error:
        raise pa.ArrowInvalid(f"its {ARROW_SCHEMA.decode()} is damaged: {error}") from None
    for message in messages(pa.BufferReader(data), 0, len(data)):
        require_modest_schema(message)


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
        """What it takes while it is decoded."""
        decoded_bytes = 8 * self.value_count if self.encoding in DELTA else 0
        return self.packed_bytes + max(self.unpacked_bytes, decoded_bytes)


def pages(file: pa.NativeFile, chunk: pq.ColumnChunkMetaData) -> Iterator[Page]:
    """Return the pages of a column chunk.

    Raises:
        pyarrow.ArrowInvalid: one takes too much memory, or its header is damaged.
    """
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < (chunk.dictionary_page_offset or 0) < at:
        at = chunk.dictionary_page_offset
    left = chunk.num_values
    while left > 0:
        page, header_bytes = _page(file, at)
        if page.memory_bytes > page_max_bytes():
            raise pa.ArrowInvalid(
                f"a page of column {chunk.path_in_schema!r} takes {page.memory_bytes:,} bytes of memory, allowed: "
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
        raise pa.ArrowInvalid("the header of a page is damaged")
    return Page(sizes[PACKED_SIZE], sizes[UNPACKED_SIZE], value_count, encoding, is_data)


def rows_within(of_column: list[Page], rows: int, max_bytes: int) -> int:
    """Return how many rows of a column of texts, at most `rows`, may be decoded at once.

    Rows that follow each other take no more than the pages that they touch; where a text may share its beginning with
    the one before it, each may take as much as its page, and more than once while a buffer grows.
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
