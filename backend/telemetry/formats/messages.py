"""The headers of Arrow IPC messages; no body is read or decoded.

https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format; the headers are flatbuffers, whose
tables are read here field by field, https://flatbuffers.dev/internals/.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from telemetry.formats.memory import metadata_max_bytes, schema_max_bytes

CONTINUATION = 0xFFFFFFFF
KINDS = {1: "schema", 2: "dictionary", 3: "record batch"}
NOT_COMPRESSED = -1
# Arrow's memory for a field of a schema, and its limit of nesting levels.
FIELD_BYTES = 512
FIELD_LEVELS = 64
TIMESTAMP, UNION = 10, 14  # numbers of types


class Table:
    """A table of a flatbuffer; its fields are numbered as in Arrow's flatbuffers schema.

    All methods raise pyarrow.ArrowInvalid if an offset points outside of the buffer.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self._at = data, at

    @classmethod
    def root(cls, data: bytes) -> "Table":
        """Return the root table of a buffer."""
        return cls(data, _number(data, "<I", 0))

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """Return a number; `kind` is a format of the module struct."""
        place = self._place(field)
        return _number(self.data, kind, place) if place else default

    def table(self, field: int) -> "Table | None":
        """Return a nested table, or None if the field is absent."""
        place = self._place(field)
        return Table(self.data, self._target(place)) if place else None

    def tables(self, field: int) -> Iterator["Table"]:
        """Return the tables of a vector."""
        first, count = self.vector(field)
        return (Table(self.data, self._target(first + 4 * n)) for n in range(count))

    def numbers(self, field: int, columns: int = 1) -> np.ndarray:
        """Return a vector of 64-bit integers, or of structs of them, as an array with a row per element."""
        first, count = self.vector(field)
        if first + 8 * columns * count > len(self.data):
            raise pa.ArrowInvalid("a vector exceeds the message header")
        return np.frombuffer(self.data, "<i8", count * columns, first).reshape(count, columns)

    def vector(self, field: int) -> tuple[int, int]:
        """Return the offset and the number of the elements of a vector, or of the bytes of a string."""
        place = self._place(field)
        if not place:
            return 0, 0
        at = self._target(place)
        return at + 4, _number(self.data, "<I", at)

    def _target(self, place: int) -> int:
        return place + _number(self.data, "<I", place)

    def _place(self, field: int) -> int:
        vtable = self._at - _number(self.data, "<i", self._at)
        entry = 4 + 2 * field
        offset = _number(self.data, "<H", vtable + entry) if entry < _number(self.data, "<H", vtable) else 0
        return self._at + offset if offset else 0


def _number(data: bytes, kind: str, at: int) -> int:
    if not 0 <= at <= len(data) - struct.calcsize(kind):
        raise pa.ArrowInvalid("an offset points outside of the message header")
    (number,) = struct.unpack_from(kind, data, at)
    return int(number)


@dataclass(frozen=True)
class Message:
    """A message of a stream, with its position in the file."""

    kind: str
    header: Table
    begin: int
    body_begin: int
    end: int

    @property
    def body_bytes(self) -> int:
        """The length of the body."""
        return self.end - self.body_begin

    @property
    def batch(self) -> Table:
        """The header of the record batch; for a dictionary, that of its values."""
        batch = self.header.table(1) if self.kind == "dictionary" else self.header
        if batch is None:
            raise pa.ArrowInvalid("a dictionary has no values")
        return batch

    @property
    def row_count(self) -> int:
        """The number of rows of the record batch."""
        return self.batch.number(0, "<q")

    @property
    def dictionary_id(self) -> int:
        """The id by which fields refer to the dictionary."""
        return self.header.number(0, "<q")

    @property
    def is_delta(self) -> bool:
        """True if it adds to a dictionary instead of replacing it."""
        return bool(self.header.number(2, "<B"))


def messages(file: pa.NativeFile, begin: int, end: int) -> Iterator[Message]:
    """Yield the messages between two offsets of a file, or up to the end of the stream.

    Raises:
        pyarrow.ArrowInvalid: a message is cut off or not valid.
    """
    while begin < end and (message := _message(file, begin, end)) is not None:
        yield message
        begin = message.end


def _message(file: pa.NativeFile, begin: int, end: int) -> Message | None:
    header_begin, length = begin + 4, _length(file, begin)
    if length == CONTINUATION:  # a marker that older writers omit
        header_begin, length = begin + 8, _length(file, begin + 4)
    if length == 0:
        return None
    if not 0 < length <= metadata_max_bytes():
        raise pa.ArrowInvalid(
            f"a message header has {length:,} bytes, the limit is {metadata_max_bytes():,} "
            "(1/64 of INGEST_WORKER_MEMORY_BYTES)"
        )
    data = _read(file, header_begin, length)
    root = Table.root(data)
    kind, header = KINDS.get(root.number(1, "<B")), root.table(2)
    body_begin = header_begin + length
    message_end = body_begin + root.number(3, "<q")
    if kind is None or header is None:
        raise pa.ArrowInvalid("expected a schema, a dictionary or a record batch, got another kind of message")
    if not body_begin <= message_end <= end:
        raise pa.ArrowInvalid(
            f"a message body has {message_end - body_begin:,} bytes, expected at most {max(0, end - body_begin):,}"
        )
    return Message(kind, header, begin, body_begin, message_end)


def _length(file: pa.NativeFile, begin: int) -> int:
    return _number(_read(file, begin, 4), "<I", 0)


def _read(file: pa.NativeFile, begin: int, length: int) -> bytes:
    file.seek(begin)
    data = bytes(file.read(length))
    if len(data) < length:
        raise pa.ArrowInvalid(f"the file is {length - len(data):,} bytes too short")
    return data


def memory_bytes(file: pa.NativeFile, message: Message, buffers: list[int] | None = None) -> int:
    """Return the memory that a batch takes, in bytes: its body, and the unpacked buffers.

    Args:
        file: its file. The first 8 bytes of each compressed buffer, its unpacked length, are read.
        message: a record batch or a dictionary.
        buffers: the indexes of the buffers that are unpacked; None for all.

    Raises:
        pyarrow.ArrowInvalid: the header contradicts itself or the body.
    """
    places = message.batch.numbers(2, columns=2)
    if buffers is not None:
        if max(buffers) >= len(places):
            raise pa.ArrowInvalid("a record batch has fewer buffers than its schema requires")
        places = places[buffers]
    offsets, lengths = places[:, 0], places[:, 1]
    if ((offsets < 0) | (lengths < 0) | (offsets > message.body_bytes - lengths)).any():
        raise pa.ArrowInvalid("a buffer of a record batch exceeds its body")
    unpacked_bytes = 0
    if message.batch.table(3) is not None:  # compressed
        unpacked_bytes = sum(_unpacked_lengths(file, message, offsets[lengths > 0].tolist()))
    if not 0 <= message.row_count <= message.body_bytes + unpacked_bytes:  # a row's time takes at least a byte
        raise pa.ArrowInvalid(f"a record batch of {message.row_count:,} rows has fewer bytes than rows")
    return message.body_bytes + unpacked_bytes


def _unpacked_lengths(file: pa.NativeFile, message: Message, offsets: list[int]) -> Iterator[int]:
    for offset in offsets:
        (length,) = struct.unpack("<q", _read(file, message.body_begin + offset, 8))
        if length < NOT_COMPRESSED:
            raise pa.ArrowInvalid(f"a compressed buffer has the invalid unpacked length {length:,}")
        yield max(length, 0)


def require_small_schema(message: Message) -> None:
    """Refuse a schema that takes much memory in Arrow, because it has many fields or refers to fields repeatedly.

    Raises:
        pyarrow.ArrowInvalid: it takes too much memory, or is damaged.
    """
    allowed_bytes, spent_bytes = schema_max_bytes(), 0
    for size_bytes in _schema_sizes(message.header):
        spent_bytes += size_bytes
        if spent_bytes > allowed_bytes:
            raise pa.ArrowInvalid(
                f"the schema takes more than {allowed_bytes:,} bytes of memory (1/8 of INGEST_WORKER_MEMORY_BYTES)"
            )


def _schema_sizes(schema: Table) -> Iterator[int]:
    yield from _metadata_sizes(schema, 2)
    for field in _fields(schema.tables(1), FIELD_LEVELS):
        yield FIELD_BYTES + field.vector(0)[1]
        yield from _metadata_sizes(field, 6)
        of_type = field.table(3)
        if of_type is not None and field.number(2, "<B") in (TIMESTAMP, UNION):
            yield 8 * of_type.vector(1)[1]


def _fields(fields: Iterator[Table], levels: int) -> Iterator[Table]:
    if levels == 0:
        raise pa.ArrowInvalid(f"the schema is nested more than {FIELD_LEVELS} levels deep")
    for field in fields:
        yield field
        yield from _fields(field.tables(5), levels - 1)


def _metadata_sizes(table: Table, field: int) -> Iterator[int]:
    for pair in table.tables(field):
        yield FIELD_BYTES + pair.vector(0)[1] + pair.vector(1)[1]
