"""Arrow's IPC messages, by their headers alone: nothing is decoded, and no body is read.

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
# Arrow makes about this much of a field, and allows this many levels.
FIELD_BYTES = 512
FIELD_LEVELS = 64
TIMESTAMP, UNION = 10, 14  # of the types


class Table:
    """A table of a flatbuffer; its fields are numbered as in Arrow's schema of them.

    An offset that points out of the buffer raises pyarrow.ArrowInvalid.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self._at = data, at

    @classmethod
    def root(cls, data: bytes) -> "Table":
        """Return the table in which a buffer begins."""
        return cls(data, _number(data, "<I", 0))

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """Return a number, whose kind is that of the module struct."""
        place = self._place(field)
        return _number(self.data, kind, place) if place else default

    def table(self, field: int) -> "Table | None":
        """Return a table, or None if there is none."""
        place = self._place(field)
        return Table(self.data, self._target(place)) if place else None

    def tables(self, field: int) -> Iterator["Table"]:
        """Return the tables of a vector, one after the other."""
        first, count = self.vector(field)
        return (Table(self.data, self._target(first + 4 * n)) for n in range(count))

    def numbers(self, field: int, columns: int = 1) -> np.ndarray:
        """Return a vector of 64-bit integers, or of structs of them, as rows."""
        first, count = self.vector(field)
        if first + 8 * columns * count > len(self.data):
            raise pa.ArrowInvalid("a vector of a header passes its end")
        return np.frombuffer(self.data, "<i8", count * columns, first).reshape(count, columns)

    def vector(self, field: int) -> tuple[int, int]:
        """Return where the elements of a vector, or the bytes of a string, begin, and how many there are."""
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
        raise pa.ArrowInvalid("an offset in a header points out of it")
    (number,) = struct.unpack_from(kind, data, at)
    return int(number)


@dataclass(frozen=True)
class Message:
    """A message of a stream: what it is, and where it lies in its file."""

    kind: str
    header: Table
    begin: int
    body_begin: int
    end: int

    @property
    def body_bytes(self) -> int:
        """The length of its body."""
        return self.end - self.body_begin

    @property
    def batch(self) -> Table:
        """The header of its record batch; of a dictionary, that of the batch of its values."""
        batch = self.header.table(1) if self.kind == "dictionary" else self.header
        if batch is None:
            raise pa.ArrowInvalid("a dictionary has no values")
        return batch

    @property
    def row_count(self) -> int:
        """The rows of its record batch."""
        return self.batch.number(0, "<q")

    @property
    def dictionary_id(self) -> int:
        """The number by which fields refer to the dictionary."""
        return self.header.number(0, "<q")

    @property
    def is_delta(self) -> bool:
        """True if it adds to a dictionary instead of replacing it."""
        return bool(self.header.number(2, "<B"))


def messages(file: pa.NativeFile, begin: int, end: int) -> Iterator[Message]:
    """Return the messages from one offset of a file to another, or to where the stream ends.

    Raises:
        pyarrow.ArrowInvalid: one is cut off, or is none of a stream.
    """
    while begin < end and (message := _message(file, begin, end)) is not None:
        yield message
        begin = message.end


def _message(file: pa.NativeFile, begin: int, end: int) -> Message | None:
    header_begin, length = begin + 4, _length(file, begin)
    if length == CONTINUATION:  # a marker, which older writers do not use
        header_begin, length = begin + 8, _length(file, begin + 4)
    if length == 0:
        return None
    if not 0 < length <= metadata_max_bytes():
        raise pa.ArrowInvalid(f"a message's header has {length:,} bytes; allowed: {metadata_max_bytes():,}")
    data = _read(file, header_begin, length)
    root = Table.root(data)
    kind, header = KINDS.get(root.number(1, "<B")), root.table(2)
    body_begin = header_begin + length
    message_end = body_begin + root.number(3, "<q")
    if kind is None or header is None:
        raise pa.ArrowInvalid("a message holds neither a schema nor a dictionary nor a record batch")
    if not body_begin <= message_end <= end:
        raise pa.ArrowInvalid(f"a message's body has {message_end - body_begin:,} bytes, more than are left")
    return Message(kind, header, begin, body_begin, message_end)


def _length(file: pa.NativeFile, begin: int) -> int:
    return _number(_read(file, begin, 4), "<I", 0)


def _read(file: pa.NativeFile, begin: int, length: int) -> bytes:
    file.seek(begin)
    data = bytes(file.read(length))
    if len(data) < length:
        raise pa.ArrowInvalid(f"the file ends {length - len(data):,} bytes too early")
    return data


def memory_bytes(file: pa.NativeFile, message: Message, buffers: list[int] | None = None) -> int:
    """Return how much memory a batch takes: its body, and what of it is unpacked.

    Args:
        file: its file. Of each compressed buffer the first 8 bytes are read, its length when unpacked.
        message: a record batch or a dictionary.
        buffers: the numbers of those that are unpacked; None: all.

    Raises:
        pyarrow.ArrowInvalid: its header contradicts itself or its body.
    """
    places = message.batch.numbers(2, columns=2)
    if buffers is not None:
        if max(buffers) >= len(places):
            raise pa.ArrowInvalid("a record batch lacks buffers of columns that its schema has")
        places = places[buffers]
    offsets, lengths = places[:, 0], places[:, 1]
    if ((offsets < 0) | (lengths < 0) | (offsets > message.body_bytes - lengths)).any():
        raise pa.ArrowInvalid("a buffer of a record batch passes the end of its body")
    unpacked_bytes = 0
    if message.batch.table(3) is not None:  # compressed
        unpacked_bytes = sum(_unpacked_lengths(file, message, offsets[lengths > 0].tolist()))
    if not 0 <= message.row_count <= message.body_bytes + unpacked_bytes:  # the time alone takes a byte
        raise pa.ArrowInvalid(f"a record batch of {message.row_count:,} rows has fewer bytes than that")
    return message.body_bytes + unpacked_bytes


def _unpacked_lengths(file: pa.NativeFile, message: Message, offsets: list[int]) -> Iterator[int]:
    for offset in offsets:
        (length,) = struct.unpack("<q", _read(file, message.body_begin + offset, 8))
        if length < NOT_COMPRESSED:
            raise pa.ArrowInvalid(f"a compressed buffer says that it has {length:,} bytes")
        yield max(length, 0)


def require_modest_schema(message: Message) -> None:
    """Refuse a schema of which Arrow would make much, since it has many fields or refers to the same ones repeatedly.

    Raises:
        pyarrow.ArrowInvalid: it would take too much memory, or is damaged.
    """
    allowed_bytes, spent_bytes = schema_max_bytes(), 0
    for size_bytes in _schema_sizes(message.header):
        spent_bytes += size_bytes
        if spent_bytes > allowed_bytes:
            raise pa.ArrowInvalid(f"the schema takes more than {allowed_bytes:,} bytes of memory")


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
