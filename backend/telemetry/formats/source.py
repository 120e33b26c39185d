"""Where a file's bytes are: on this machine, or in a store that pyarrow's filesystems know."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENOENT
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

# What Arrow raises at data that breaks its own format; of a column's name, that it is not UTF-8.
DAMAGE = (pa.ArrowException, UnicodeDecodeError)


class BadInput(Exception):
    """A file, or a part of one, that cannot be loaded; the text names the file, and the line and column if known."""

    def __init__(self, file: object, problem: str, *, line: int | None = None) -> None:
        super().__init__(f"{file}{f':{line}' if line else ''}: {problem}")


class MissingFileError(BadInput):
    """A file that is not there."""


@dataclass(frozen=True)
class Stamp:
    """What tells a file from what it becomes when it is changed."""

    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Source:
    """A file that can be read from any offset."""

    filesystem: fs.FileSystem
    path: str
    """as its filesystem has it"""
    name: str
    """as its sender knows it; errors use this"""

    def __str__(self) -> str:
        return self.name

    @classmethod
    def local(cls, path: Path) -> "Source":
        """Name a file of this machine."""
        return cls(fs.LocalFileSystem(), str(path), str(path))

    def open(self) -> pa.NativeFile:
        """Open it for reading at any offset.

        Raises:
            BadInput: it is not there, or may not be read.
        """
        try:
            return self.filesystem.open_input_file(self.path)
        except FileNotFoundError as error:
            raise MissingFileError(self, _reason(error)) from None
        except OSError as error:
            raise BadInput(self, _reason(error)) from None

    def stamp(self) -> Stamp:
        """Look at its size and its time of change.

        Raises:
            BadInput: there is no such file, it is empty, or it may not be looked at.
        """
        try:
            found = self.filesystem.get_file_info(self.path)
        except OSError as error:
            raise BadInput(self, _reason(error)) from None
        if found.type == fs.FileType.NotFound:
            raise MissingFileError(self, os.strerror(ENOENT).lower())
        if found.type == fs.FileType.Directory:
            raise BadInput(self, "is a directory")
        if found.size == 0:
            raise BadInput(self, "the file is empty")
        return Stamp(found.size, found.mtime_ns or 0)

    def require_unchanged(self, stamp: Stamp) -> None:
        """Refuse a file that is not what it was when it was cut.

        Raises:
            BadInput: it is gone, or has changed.
        """
        if (now := self.stamp()) != stamp:
            raise BadInput(
                self,
                f"the file has changed since it was enqueued ({stamp.size_bytes} bytes then, {now.size_bytes} now)",
            )

    @contextmanager
    def naming_damage(self, where: str) -> Iterator[None]:
        """Take what Arrow finds wrong in a block for damage to the file.

        Args:
            where: the part of the file that is read.

        Raises:
            BadInput: the data breaks its own format.
            OSError: the way to the data is broken, so it may be read another time.
        """
        try:
            yield
        except DAMAGE as error:
            raise BadInput(self, f"{where}: {error}") from None
        except OSError as error:  # of a damaged page, too, but that is no error of the system
            if error.errno or not isinstance(self.filesystem, fs.LocalFileSystem):
                raise
            raise BadInput(self, f"{where}: {error}") from None


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else " ".join(str(error).split())
