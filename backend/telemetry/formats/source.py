"""Reading files on this machine, or in object stores that pyarrow's filesystems support."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EACCES, EILSEQ, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from poolhouse.formatting import one_line

# Errors of Arrow for data that violates its format; UnicodeDecodeError is for a column name that is not UTF-8.
DAMAGE = (pa.ArrowException, UnicodeDecodeError)

# Errors of the operating system for a path that will never work. All others may be temporary: the network is down, a
# volume is not mounted, a file handle is stale, a disk is full.
PERMANENT_ERRNOS = frozenset({EACCES, EILSEQ, EISDIR, ELOOP, ENAMETOOLONG, ENOTDIR, EPERM})
# Neither errors of object stores nor those of Arrow for damaged data have an errno; their text distinguishes them.
STORE_ERROR = re.compile(r"AWS Error|google::cloud|Azure")
PERMANENT_STORE_ERROR = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|NO_SUCH_KEY|RESOURCE_NOT_FOUND|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH"
    r"|PERMISSION_DENIED|HTTP status (?:30[178]|40[0134])"
)

CHECK_MOUNT = "check that its volume is mounted"
# An empty file in the root of a spool that is a folder; the mount point of a volume that is not mounted has none.
SPOOL_MARKER = ".poolhouse-spool"


class BadInput(Exception):
    """A file, or a part of one, that cannot be loaded; the text names the file, and the line and column if known."""

    def __init__(self, file: object, problem: str, *, line: int | None = None) -> None:
        super().__init__(f"{file}{f':{line}' if line else ''}: {problem}")


class MissingFileError(BadInput):
    """A file that does not exist."""


class StorageUnavailableError(OSError):
    """A file or its storage cannot be used at present, but may be usable later."""

    def __init__(self, file: object, problem: str, errno: int | None = None) -> None:
        super().__init__(f"{file}: {problem}")
        self.errno = errno


def require_mounted(spool: Path) -> None:
    """Check that a spool's folder has its marker file; otherwise its volume may not be mounted.

    Raises:
        StorageUnavailableError: the marker file does not exist or cannot be found.
    """
    try:
        (spool / SPOOL_MARKER).stat()
    except FileNotFoundError:
        raise StorageUnavailableError(
            "the spool",
            f"{spool} has no file {SPOOL_MARKER}; {CHECK_MOUNT}. If this is the right folder, run manage.py "
            "prepare_spool, which creates the file",
        ) from None
    except OSError as error:
        raise StorageUnavailableError("the spool", _reason(error), error.errno) from error


@dataclass(frozen=True)
class Stamp:
    """The size and time of change of a file, by which a later change is detected."""

    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Source:
    """A file that can be read from any offset."""

    filesystem: fs.FileSystem
    path: str
    """path in its filesystem"""
    name: str
    """name that its sender uses, and errors too"""
    is_spooled: bool = False
    """True if it is in the spool, where errors are the deployment's fault, unless the file does not exist"""

    def __str__(self) -> str:
        return self.name

    @classmethod
    def local(cls, path: Path) -> "Source":
        """Return the source of a file on this machine."""
        return cls(fs.LocalFileSystem(), str(path), str(path))

    def open(self) -> pa.NativeFile:
        """Open it for reading at any offset.

        Raises:
            BadInput: it does not exist, or its permissions do not allow to read it.
            StorageUnavailableError: it cannot be opened at present.
        """
        with self.naming_damage("cannot open the file"):
            return self.filesystem.open_input_file(self.path)

    def stamp(self) -> Stamp:
        """Return its size and its time of change.

        Raises:
            BadInput: it does not exist, is empty, or its permissions do not allow to read it.
            StorageUnavailableError: it cannot be reached at present.
        """
        with self.naming_damage("cannot find the file"):
            found = self.filesystem.get_file_info(self.path)
        if found.type == fs.FileType.NotFound:
            raise self._missing()
        if found.type == fs.FileType.Directory:
            raise BadInput(self, "expected a file, got a directory")
        if found.size == 0:
            raise BadInput(self, "the file is empty")
        return Stamp(found.size, found.mtime_ns or 0)

    def require_unchanged(self, stamp: Stamp) -> None:
        """Check that the file is the one that was cut.

        Raises:
            BadInput: it does not exist any more, or has changed.
            StorageUnavailableError: it cannot be reached at present, for example because its volume is not mounted.
        """
        try:
            now = self.stamp()
        except MissingFileError as error:
            # The file existed before. The mount point of a volume is an empty folder while the volume is not mounted.
            if not self.is_spooled and self._folder_is_empty():
                raise StorageUnavailableError(error, f"its folder is missing or empty; {CHECK_MOUNT}") from None
            raise
        if now != stamp:
            raise BadInput(
                self,
                f"the file has changed since it was enqueued ({stamp.size_bytes:,} bytes then, {now.size_bytes:,} "
                "now); enqueue it again",
            )

    @contextmanager
    def classifying_errors(self) -> Iterator[None]:
        """Raise BadInput for permanent errors of a block, StorageUnavailableError for temporary ones; keep Arrow's.

        Raises:
            BadInput: the file does not exist, or its permissions do not allow to read it.
            StorageUnavailableError: the file cannot be reached at present.
        """
        try:
            yield
        except StorageUnavailableError:
            raise
        except OSError as error:
            if not (error.errno or self._is_of_store(error)):
                raise
            raise self._classified(error) from error

    @contextmanager
    def naming_damage(self, where: str) -> Iterator[None]:
        """Raise Arrow's errors of a block as BadInput.

        Args:
            where: the part of the file that is read, or what fails.

        Raises:
            BadInput: the data violates its format.
            StorageUnavailableError: the file cannot be reached at present.
        """
        try:
            with self.classifying_errors():
                yield
        except StorageUnavailableError:
            raise
        except (*DAMAGE, OSError) as error:
            raise BadInput(self, f"{where}: {error}") from None

    def _classified(self, error: OSError) -> BadInput | OSError:
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
    return os.strerror(error.errno).lower() if error.errno else one_line(error)
