"""Where a file's bytes are: on this machine, or in a store that pyarrow's filesystems know."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EACCES, EILSEQ, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

# What Arrow raises at data that breaks its own format; of a column's name, that it is not UTF-8.
DAMAGE = (pa.ArrowException, UnicodeDecodeError)

# What the operating system says of a path that will never work. Anything else may pass: a network that is down, a
# volume that is not mounted, a handle that is stale, a disk that is full.
PERMANENT_ERRNOS = frozenset({EACCES, EILSEQ, EISDIR, ELOOP, ENAMETOOLONG, ENOTDIR, EPERM})
# An object store's errors have no errno, nor have Arrow's own at damaged data; the text tells one from the other.
STORE_ERROR = re.compile(r"AWS Error|google::cloud|Azure")
PERMANENT_STORE_ERROR = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|NO_SUCH_KEY|RESOURCE_NOT_FOUND|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH"
    r"|PERMISSION_DENIED|HTTP status (?:30[178]|40[0134])"
)

IS_IT_MOUNTED = "is its volume mounted?"
# An empty file in the root of a spool that is a folder. The mount point of a volume that is not mounted has none.
SPOOL_MARKER = ".poolhouse-spool"


class BadInput(Exception):
    """A file, or a part of one, that cannot be loaded; the text names the file, and the line and column if known."""

    def __init__(self, file: object, problem: str, *, line: int | None = None) -> None:
        super().__init__(f"{file}{f':{line}' if line else ''}: {problem}")


class MissingFileError(BadInput):
    """A file that does not exist."""


class StorageUnavailableError(OSError):
    """Where a file lies, or is to be written, cannot be used at present; the same may work later."""

    def __init__(self, file: object, problem: str, errno: int | None = None) -> None:
        super().__init__(f"{file}: {problem}")
        self.errno = errno


def require_mounted(spool: Path) -> None:
    """Refuse a spool's folder without its marker: it does not exist, or it is where a volume is to be mounted.

    Raises:
        StorageUnavailableError: the marker is not there, or cannot be looked up.
    """
    try:
        (spool / SPOOL_MARKER).stat()
    except FileNotFoundError:
        raise StorageUnavailableError(
            "the spool",
            f"{spool} has no file {SPOOL_MARKER}; {IS_IT_MOUNTED} If this is the right folder, manage.py prepare_spool "
            "makes the file",
        ) from None
    except OSError as error:
        raise StorageUnavailableError("the spool", _reason(error), error.errno) from error


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
    is_spooled: bool = False
    """in the spool, which belongs to this deployment: no error but the file's absence is the input's fault"""

    def __str__(self) -> str:
        return self.name

    @classmethod
    def local(cls, path: Path) -> "Source":
        """Name a file of this machine."""
        return cls(fs.LocalFileSystem(), str(path), str(path))

    def open(self) -> pa.NativeFile:
        """Open it for reading at any offset.

        Raises:
            BadInput: it does not exist, or may not be read.
            StorageUnavailableError: it cannot be opened at present.
        """
        with self.naming_damage("it cannot be opened"):
            return self.filesystem.open_input_file(self.path)

    def stamp(self) -> Stamp:
        """Return its size and its time of change.

        Raises:
            BadInput: it does not exist, is empty, or may not be read.
            StorageUnavailableError: it cannot be reached at present.
        """
        with self.naming_damage("it cannot be found"):
            found = self.filesystem.get_file_info(self.path)
        if found.type == fs.FileType.NotFound:
            raise self._missing()
        if found.type == fs.FileType.Directory:
            raise BadInput(self, "is a directory")
        if found.size == 0:
            raise BadInput(self, "the file is empty")
        return Stamp(found.size, found.mtime_ns or 0)

    def require_unchanged(self, stamp: Stamp) -> None:
        """Refuse a file that differs from what was cut.

        Raises:
            BadInput: it is gone, or has changed.
            StorageUnavailableError: it cannot be reached at present, for example because its volume is not mounted.
        """
        try:
            now = self.stamp()
        except MissingFileError as error:
            # It was here once. The mount point of a volume is an empty folder while the volume is not mounted.
            if not self.is_spooled and self._folder_is_empty():
                raise StorageUnavailableError(error, f"its folder is missing or empty; {IS_IT_MOUNTED}") from None
            raise
        if now != stamp:
            raise BadInput(
                self,
                f"the file has changed since it was enqueued ({stamp.size_bytes} bytes then, {now.size_bytes} now)",
            )

    @contextmanager
    def judging_errors(self) -> Iterator[None]:
        """Raise BadInput for permanent errors of a block, StorageUnavailableError for others; leave Arrow's own alone.

        Raises:
            BadInput: the file does not exist, or may not be read.
            StorageUnavailableError: the way to the data is broken at present.
        """
        try:
            yield
        except StorageUnavailableError:
            raise
        except OSError as error:
            if not (error.errno or self._is_of_store(error)):
                raise
            raise self._judged(error) from error

    @contextmanager
    def naming_damage(self, where: str) -> Iterator[None]:
        """Take what Arrow finds wrong in a block for damage to the file.

        Args:
            where: the part of the file that is read.

        Raises:
            BadInput: the data breaks its own format.
            StorageUnavailableError: the way to the data is broken at present.
        """
        try:
            with self.judging_errors():
                yield
        except StorageUnavailableError:
            raise
        except (*DAMAGE, OSError) as error:
            raise BadInput(self, f"{where}: {error}") from None

    def _judged(self, error: OSError) -> BadInput | OSError:
        if error.errno == ENOENT:
            return self._missing()
        if not self.is_spooled and _is_permanent(error):
            return BadInput(self, _reason(error))
        return StorageUnavailableError(self, _reason(error), error.errno)

    def _missing(self) -> BadInput | OSError:
        missing = os.strerror(ENOENT).lower()
        if self.is_spooled and self._is_local:
            try:
                require_mounted(Path(self.filesystem.base_path))
            except StorageUnavailableError as error:
                return StorageUnavailableError(self, f"{missing}; {error}", ENOENT)
        return MissingFileError(self, missing)

    def _folder_is_empty(self) -> bool:
        try:
            return self._is_local and not any(self._folder.iterdir())
        except OSError:
            return True

    def _is_of_store(self, error: OSError) -> bool:
        return not self._is_local and bool(STORE_ERROR.search(str(error)))

    @property
    def _is_local(self) -> bool:
        return isinstance(getattr(self.filesystem, "base_fs", self.filesystem), fs.LocalFileSystem)

    @property
    def _folder(self) -> Path:
        return Path(getattr(self.filesystem, "base_path", ""), self.path).parent


def _is_permanent(error: OSError) -> bool:
    if error.errno:
        return error.errno in PERMANENT_ERRNOS
    return bool(PERMANENT_STORE_ERROR.search(str(error)))


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else " ".join(str(error).split())
