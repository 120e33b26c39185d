"""Arrow IPC streams and files, cut between record batches by reading only message headers.

A file is a stream between a magic word and a footer, https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format,
so both are read in the same way. A slice is read as a stream of its own: schema, dictionaries so far, its batches.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyarrow import ipc

from telemetry.formats.base import Columns, Parsed, Slice
from telemetry.formats.memory import SAMPLE_MAX_BYTES, dictionaries_max_bytes, message_max_bytes
from telemetry.formats.messages import Message, memory_bytes, messages, require_small_schema
from telemetry.formats.source import DAMAGE, BadInput, Source
from telemetry.formats.typed import check_schema, parse_batches

MAGIC = b"ARROW1"
STREAM_OFFSET = 8  # of the stream in a file: the magic word, and padding

# An offset and a length in bytes, as in the ledger.
Range = tuple[int, int]


class ArrowFormat:
    """Arrow IPC, with the same column types as Parquet."""

    name = "arrow"
    endings: tuple[str, ...] = (".arrow", ".arrows", ".feather")

    def check(self, source: Source, columns: Columns) -> None:
        """Check the types of the schema's columns."""
        source.stamp()
        with source.naming_damage("not a valid Arrow stream or file"), source.open() as file:
            check_schema(source, _schema(file, _schema_message(_stream(file))), columns)

    def cut(self, source: Source, batch_rows: int, columns: Columns) -> Iterator[Slice]:
        """Yield slices of consecutive record batches; one with more than `batch_rows` rows is a slice of its own."""
        gathered = _Gathered()
        with source.open() as file:
            try:
                stream = _stream(file)
                schema = _schema_message(stream)
                bounds = _Bounds(file, _schema(file, schema), columns)
                dictionaries = _Dictionaries()
                for message in stream:
                    size_bytes = bounds.require(message)
                    if message.kind == "dictionary":
                        dictionaries.add(message, size_bytes)
                        continue
                    if gathered.rows and gathered.rows + message.row_count > batch_rows:
                        yield gathered.slice(_range(schema.begin, schema.end))
                        gathered = _Gathered(gathered.next_row)
                    gathered.add(message, dictionaries)
            except DAMAGE as error:
                raise BadInput(source, f"cannot read the data after row {gathered.next_row:,}: {error}") from None
        if gathered.rows:
            yield gathered.slice(_range(schema.begin, schema.end))
        elif not gathered.first_row:
            raise BadInput(source, "the file has no rows")

    def read(self, source: Source, place: dict[str, Any], columns: Columns) -> Iterator[Parsed]:
        """Read the record batches of a slice, one at a time."""
        with source.naming_damage(f"cannot read the rows from {place['first_row'] + 1:,} on"), source.open() as file:
            offset, length = place["schema"]
            schema = _schema(file, _schema_message(messages(file, offset, offset + length)))
            check_schema(source, schema, columns)
            options = ipc.IpcReadOptions(included_fields=[schema.names.index(name) for name in columns.all])
            parts = _Parts(file, _parts(file, place, _Bounds(file, schema, columns)))
            batches = ipc.open_stream(pa.PythonFile(parts, mode="r"), options=options)
            yield from parse_batches(batches, columns, place["first_row"])

    def sample(self, source: Source, part: Slice, columns: Columns, row_limit: int) -> Iterator[Parsed]:
        """Read the first record batch, unless it takes more than SAMPLE_MAX_BYTES of memory."""
        with source.naming_damage("cannot read a sample"), source.open() as file:
            offset, length = part.place["schema"]
            schema = _schema(file, _schema_message(messages(file, offset, offset + length)))
            first = next(_of_ranges(file, part.place["batches"]))
            is_small = _Bounds(file, schema, columns).require(first) <= SAMPLE_MAX_BYTES
        if is_small:
            place = {**part.place, "batches": [_range(first.begin, first.end)], "rows": first.row_count}
            yield from self.read(source, place, columns)


FORMAT = ArrowFormat()


def _stream(file: pa.NativeFile) -> Iterator[Message]:
    file.seek(0)
    return messages(file, STREAM_OFFSET if file.read(len(MAGIC)) == MAGIC else 0, file.size())


def _schema_message(stream: Iterator[Message]) -> Message:
    message = next(stream, None)
    if message is None or message.kind != "schema":
        raise pa.ArrowInvalid("it does not begin with an Arrow schema")
    require_small_schema(message)
    return message


def _schema(file: pa.NativeFile, message: Message) -> pa.Schema:
    file.seek(message.begin)
    return ipc.read_schema(pa.py_buffer(file.read(message.end - message.begin)))


@dataclass
class _Gathered:
    """Record batches of one slice; dictionaries between them are part of it."""

    first_row: int = 0
    rows: int = 0
    begin: int = 0
    end: int = 0
    dictionaries: list[Range] = field(default_factory=list)

    @property
    def next_row(self) -> int:
        return self.first_row + self.rows

    def add(self, message: Message, dictionaries: "_Dictionaries") -> None:
        if self.end == 0:
            self.begin, self.dictionaries = message.begin, dictionaries.ranges()
        self.end = message.end
        self.rows += message.row_count

    def slice(self, schema: Range) -> Slice:
        place = {
            "schema": schema,
            "dictionaries": self.dictionaries,
            "batches": [_range(self.begin, self.end)],
            "first_row": self.first_row,
            "rows": self.rows,
            "skip": 0,
        }
        return Slice(self.rows, place)


def _range(begin: int, end: int) -> Range:
    return begin, end - begin


class _Dictionaries:
    """The valid dictionary messages so far: for each dictionary the last whole one, and the deltas after it."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[int, int]] = {}
        self._end = 0

    def add(self, message: Message, size_bytes: int) -> None:
        """Add a dictionary message.

        Raises:
            pyarrow.ArrowInvalid: all dictionaries together take too much memory.
        """
        first, before_bytes = self._of.get(message.dictionary_id, (message.begin, 0))
        if not message.is_delta:
            first, before_bytes = message.begin, 0
        self._of[message.dictionary_id] = first, before_bytes + size_bytes
        self._end = message.end
        if (total_bytes := sum(size for _, size in self._of.values())) > dictionaries_max_bytes():
            raise pa.ArrowInvalid(
                f"the dictionaries take {total_bytes:,} bytes of memory, the limit is {dictionaries_max_bytes():,} "
                "(1/16 of INGEST_WORKER_MEMORY_BYTES); write labels that rarely repeat as strings"
            )

    def ranges(self) -> list[Range]:
        """Return the range from the first valid message to the last; other messages in it are skipped when reading."""
        return [_range(min(first for first, _ in self._of.values()), self._end)] if self._of else []


class _Bounds:
    """Checks the memory that messages of a stream take."""

    def __init__(self, file: pa.NativeFile, schema: pa.Schema, columns: Columns) -> None:
        self._file = file
        self._schema, self._columns = schema, columns

    def require(self, message: Message) -> int:
        """Return the memory that a message takes, in bytes.

        Raises:
            pyarrow.ArrowInvalid: it takes too much, or its header is damaged.
        """
        if message.kind == "schema":
            raise pa.ArrowInvalid("the stream has more than one schema")
        buffers = None if message.kind == "dictionary" else self._needed_buffers(message)
        if (size_bytes := memory_bytes(self._file, message, buffers)) > message_max_bytes():
            raise pa.ArrowInvalid(
                f"a {message.kind} of {message.row_count:,} rows takes {size_bytes:,} bytes of memory, the limit is "
                f"{message_max_bytes():,} (half of INGEST_WORKER_MEMORY_BYTES); write it with fewer rows, "
                "for example with max_chunksize=100_000"
            )
        return size_bytes

    def _needed_buffers(self, message: Message) -> list[int]:
        """Return the indexes of the buffers of the columns that are read; the others are not unpacked."""
        view_counts = iter(message.batch.numbers(4)[:, 0].tolist())
        needed: list[int] = []
        first = 0
        for column in self._schema:
            count = _buffer_count(column.type, view_counts)
            if column.name in self._columns.all:
                needed += range(first, first + count)
            first += count
        return needed


def _buffer_count(kind: pa.DataType, view_counts: Iterator[int]) -> int:
    """Return the number of buffers of a type in a record batch, https://arrow.apache.org/docs/format/Columnar.html."""
    if isinstance(kind, pa.BaseExtensionType):
        return _buffer_count(kind.storage_type, view_counts)
    own = kind.num_buffers
    if pa.types.is_null(kind) or pa.types.is_union(kind) or pa.types.is_run_end_encoded(kind):
        own -= 1  # the validity buffer, which these types have only in memory
    if kind.has_variadic_buffers:
        own += next(view_counts, 0)
    return int(own) + sum(_buffer_count(kind.field(n).type, view_counts) for n in range(kind.num_fields))


def _parts(file: pa.NativeFile, place: dict[str, Any], bounds: _Bounds) -> Iterator[Range]:
    """Return the ranges of the messages that make a slice's stream."""
    yield tuple(place["schema"])
    for part in (_dictionaries(_of_ranges(file, place["dictionaries"])), _of_ranges(file, place["batches"])):
        for message in part:
            bounds.require(message)
            yield _range(message.begin, message.end)


def _dictionaries(stream: Iterator[Message]) -> Iterator[Message]:
    """Yield the dictionary messages, without deltas of a dictionary that was replaced later."""
    begun: set[int] = set()
    for message in stream:
        if message.kind == "dictionary" and (not message.is_delta or message.dictionary_id in begun):
            begun.add(message.dictionary_id)
            yield message


def _of_ranges(file: pa.NativeFile, ranges: Iterable[Range]) -> Iterator[Message]:
    for offset, length in ranges:
        yield from messages(file, offset, offset + length)


class _Parts(io.RawIOBase):
    """Parts of a file as one stream, which is read once; no more than the requested bytes are held in memory."""

    def __init__(self, file: pa.NativeFile, parts: Iterator[Range]) -> None:
        self._file, self._parts = file, parts
        self._offset = self._left = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        pieces: list[bytes] = []
        while size > 0 and self._advance():
            self._file.seek(self._offset)
            pieces.append(self._file.read(min(size, self._left)))
            if not pieces[-1]:
                break
            self._offset += len(pieces[-1])
            self._left -= len(pieces[-1])
            size -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _advance(self) -> bool:
        while self._left == 0:
            part = next(self._parts, None)
            if part is None:
                return False
            self._offset, self._left = part
        return True
