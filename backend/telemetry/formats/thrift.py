"""A reader of Thrift's compact protocol, which Parquet's footer and page headers use, with a limit of the memory.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from collections.abc import Iterator

import pyarrow as pa

STOP, TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(13)
FIXED_BYTES = {TRUE: 0, FALSE: 0, BYTE: 1, DOUBLE: 8}  # the type of a boolean field is its value
LEVELS = 16
# Memory of Parquet's reader for an element: a row group or a column chunk, another struct, anything else.
LARGE_STRUCT_BYTES, STRUCT_BYTES, ELEMENT_BYTES = 1024, 128, 32
LARGE_STRUCT_LEVELS = 2


class TruncatedError(pa.ArrowInvalid):  # type: ignore[misc]
    """The data ends within a value."""


class Reader:
    """Reads data from its beginning.

    All methods raise pyarrow.ArrowInvalid if the data is damaged, or would take too much memory in Parquet's reader.
    """

    def __init__(self, data: bytes, memory_max_bytes: int) -> None:
        self._data, self.at = data, 0
        self._memory_max_bytes = memory_max_bytes
        self._memory_bytes = 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield the number and type of each field of a struct; the caller has to read or skip its value."""
        number = 0
        while header := self._byte():
            number = number + (header >> 4) if header >> 4 else self.integer()
            yield number, header & 0xF

    def integer(self) -> int:
        """Read an integer of 16, 32 or 64 bits."""
        zigzag = self._varint()
        return (zigzag >> 1) ^ -(zigzag & 1)

    def binary(self) -> bytes:
        """Read a string."""
        length = self._pass_binary()
        return self._data[self.at - length : self.at]

    def elements(self) -> Iterator[int]:
        """Yield the type of each element of a list; the caller has to read or skip its value."""
        header = self._byte()
        count = header >> 4
        for _ in range(self._varint() if count == 15 else count):
            yield header & 0xF

    def large_structs(self) -> Iterator[None]:
        """Yield at each element of a list of row groups or column chunks; the caller has to read its fields."""
        for kind in self.elements():
            if kind != STRUCT:
                raise pa.ArrowInvalid(f"expected a list of structs (type {STRUCT}), got type {kind}")
            self._weigh(LARGE_STRUCT_BYTES)
            yield

    def skip(self, kind: int, levels: int = 0) -> None:
        """Skip a value, and count the memory that it takes in Parquet's reader."""
        if levels > LEVELS:
            raise pa.ArrowInvalid(f"the metadata is nested more than {LEVELS} levels deep")
        if kind in FIXED_BYTES:
            self._advance(FIXED_BYTES[kind])
        elif kind in (I16, I32, I64):
            self._varint()
        elif kind == BINARY:
            self._pass_binary()
        else:
            self._skip_container(kind, levels)

    def _skip_container(self, kind: int, levels: int) -> None:
        if kind in (LIST, SET):
            for element in self.elements():
                self._skip_element(element, levels)
        elif kind == STRUCT:
            for _, field in self.fields():
                self.skip(field, levels + 1)
        elif kind == MAP:
            self._skip_map(levels)
        else:
            raise pa.ArrowInvalid(f"a value has the unknown type {kind}")

    def _skip_element(self, kind: int, levels: int) -> None:
        if kind == STRUCT:
            self._weigh(LARGE_STRUCT_BYTES if levels < LARGE_STRUCT_LEVELS else STRUCT_BYTES)
        else:
            self._weigh(ELEMENT_BYTES)
        self.skip(BYTE if kind in (TRUE, FALSE) else kind, levels)

    def _skip_map(self, levels: int) -> None:
        count = self._varint()
        kinds = self._byte() if count else 0
        for _ in range(count):
            self._skip_element(kinds >> 4, levels)
            self._skip_element(kinds & 0xF, levels)

    def _weigh(self, size_bytes: int) -> None:
        self._memory_bytes += size_bytes
        if self._memory_bytes > self._memory_max_bytes:
            raise pa.ArrowInvalid(f"the metadata takes more than {self._memory_max_bytes:,} bytes of memory")

    def _pass_binary(self) -> int:
        length = self._varint()
        self._advance(length)
        self._weigh(length)
        return length

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise pa.ArrowInvalid("an integer has more than 64 bits")

    def _byte(self) -> int:
        self._advance(1)
        return self._data[self.at - 1]

    def _advance(self, count: int) -> None:
        self.at += count
        if self.at > len(self._data):
            raise TruncatedError("the metadata is cut off")
