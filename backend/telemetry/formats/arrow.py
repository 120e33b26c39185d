"""Arrow IPC, stream or file: cut between record batches.

A file is a stream between a magic word and a footer, https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format,
so one reading does for both. A slice is read as a stream of its own: the schema, the dictionaries so far, its batches.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyarrow import ipc

from telemetry.formats.base import PIECE_ROWS, Columns, Parsed, Slice
from telemetry.formats.source import DAMAGE, BadInput, Source
from telemetry.formats.typed import check_schema, parse_batches

MAGIC = b"ARROW1"
STREAM_OFFSET = 8  # of the stream in a file: the magic word, and padding

# An offset and a length in bytes.
Range = tuple[int, int]


class ArrowFormat:
    """Arrow's own format, with the same types as Parquet."""

    name = "arrow"
    endings: tuple[str, ...] = (".arrow", ".arrows", ".feather")

    def check(self, source: Source, columns: Columns) -> None:
        """Read the schema."""
        source.stamp()
        try:
            with source.open() as file:
                _seek_stream(file)
                check_schema(source, ipc.open_stream(file).schema, columns)
        except (*DAMAGE, OSError) as error:
            raise BadInput(source, f"this is no Arrow stream or file: {error}") from None

    def cut(self, source: Source, batch_rows: int, columns: Columns) -> Iterator[Slice]:
        """Gather neighbouring record batches; one that is larger than a batch stays whole, since it is read whole."""
        head: dict[str, Any] = {}
        gathered: list[Range] = []
        first_row = rows = 0
        try:
            for kind, place, count in _messages(source, columns):
                if gathered and (kind == "dictionary" or rows + count > batch_rows):
                    yield _slice(head, gathered, first_row, rows)
                    first_row, rows, gathered = first_row + rows, 0, []
                if kind == "schema":
                    head = {"schema": place, "dictionaries": []}
                elif kind == "dictionary":
                    head = {**head, "dictionaries": [*head["dictionaries"], place]}
                else:
                    gathered.append(place)
                    rows += count
        except (*DAMAGE, OSError) as error:
            raise BadInput(source, f"after row {first_row + rows}: {error}") from None
        if rows:
            yield _slice(head, gathered, first_row, rows)
        elif not first_row:
            raise BadInput(source, "there is no row in the file")

    def read(self, source: Source, place: dict[str, Any], columns: Columns) -> Iterator[Parsed]:
        """Read record batches."""
        with source.naming_damage(f"rows from {place['first_row'] + 1}"):
            with source.open() as file:
                parts = [_read(file, part) for part in (place["schema"], *place["dictionaries"], *place["batches"])]
            names = ipc.read_schema(pa.py_buffer(parts[0])).names
            options = ipc.IpcReadOptions(included_fields=[names.index(name) for name in columns.all])
            stream = ipc.open_stream(pa.BufferReader(b"".join(parts)), options=options)
            yield from parse_batches(stream, columns, place)

    def sample(self, source: Source, part: Slice, columns: Columns, row_limit: int) -> Iterator[Parsed]:
        """Read the first record batch, which is decoded as a whole anyway; of a large one, a piece."""
        rows = min(part.row_count, max(row_limit, PIECE_ROWS))
        first = {**part.place, "batches": part.place["batches"][:1], "rows": rows}
        yield from self.read(source, first, columns)


FORMAT = ArrowFormat()


def _slice(head: dict[str, Any], batches: list[Range], first_row: int, rows: int) -> Slice:
    return Slice(rows, {**head, "batches": batches, "first_row": first_row, "rows": rows, "skip": 0})


def _seek_stream(file: pa.NativeFile) -> None:
    file.seek(STREAM_OFFSET if file.read(len(MAGIC)) == MAGIC else 0)


def _messages(source: Source, columns: Columns) -> Iterator[tuple[str, Range, int]]:
    """Give the messages of a stream in turn: what each is, where it lies, and how many rows it has.

    A message does not tell its rows, so a second reader, of the time alone, goes along.
    """
    with source.open() as file, source.open() as counted:
        _seek_stream(file)
        _seek_stream(counted)
        times = _batches(counted, columns.time)
        reader = ipc.MessageReader.open_stream(file)
        begin = file.tell()
        for message in reader:
            end = file.tell()
            rows = next(times).num_rows if message.type == "record batch" else 0
            yield message.type, (begin, end - begin), rows
            begin = end


def _batches(file: pa.NativeFile, column: str) -> Iterator[pa.RecordBatch]:
    schema_end = file.tell()
    field = ipc.open_stream(file).schema.names.index(column)
    file.seek(schema_end)
    yield from ipc.open_stream(file, options=ipc.IpcReadOptions(included_fields=[field]))


def _read(file: pa.NativeFile, part: Range) -> bytes:
    offset, length = part
    file.seek(offset)
    return bytes(file.read(length))
