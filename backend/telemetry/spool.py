"""The spool: a folder or an object store shared by web and workers, for uploads, unpacked files and rejects."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from errno import ENOSPC
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
from django.conf import settings
from pyarrow import fs

from poolhouse.formatting import one_line
from telemetry.formats import SPOOL_MARKER, BadInput, Source, StorageUnavailableError, require_mounted
from telemetry.unpacking import UnpackError, unpacked

# A location in the spool is this and the path in the spool, since each machine may mount the spool elsewhere.
SCHEME = "spool:"
FILES = "files"
NAME = "the spool"
COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Spooled:
    """A file that is being written into the spool."""

    location: str
    sink: pa.NativeFile


@dataclass(frozen=True)
class Entry:
    """A file that is in the spool."""

    location: str
    size_bytes: int
    changed_at: datetime


class SpoolFullError(StorageUnavailableError):
    """The spool's disk has no room for another input."""

    def __init__(self, free_bytes: int, floor_bytes: int) -> None:
        super().__init__(
            NAME,
            f"its disk has {free_bytes:,} bytes free, of which {floor_bytes:,} must stay free "
            "(INGEST_SPOOL_MIN_FREE_BYTES)",
            ENOSPC,
        )


def filesystem() -> fs.SubTreeFileSystem:
    """Return the filesystem at INGEST_SPOOL.

    Raises:
        pyarrow.ArrowInvalid, OSError: pyarrow does not support its URL, or it cannot be reached.
    """
    return _filesystem_at(settings.INGEST_SPOOL)


@lru_cache
def _filesystem_at(url: str) -> fs.SubTreeFileSystem:
    if "://" in url:
        base, path = fs.FileSystem.from_uri(url)
    else:
        base, path = fs.LocalFileSystem(), url
    return fs.SubTreeFileSystem(path, base)


def prepare() -> None:
    """Create the spool's folder and its marker file; an object store needs neither.

    Requests never do this, because the folder may be the mount point of a volume that is not mounted.

    Raises:
        StorageUnavailableError: the folder cannot be created or written to.
    """
    with _raising_unavailable():
        spool = filesystem()
        if _is_folder(spool):
            root = Path(spool.base_path)
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            (root / SPOOL_MARKER).touch()


def is_mounted() -> bool:
    """Return True if the spool's folder has the marker file, or the spool is an object store."""
    try:
        _require_mounted(filesystem())
    except StorageUnavailableError:
        return False
    return True


def require_present() -> None:
    """Check that the spool is mounted, so that a missing one is not mistaken for an empty one.

    Raises:
        StorageUnavailableError: its folder has no marker file, for example because its volume is not mounted.
    """
    _require_mounted(filesystem())


def was_used() -> bool:
    """Return True if inputs were ever written to the spool; their subfolder stays when they are removed.

    Raises:
        StorageUnavailableError: the spool cannot be read at present.
    """
    with _raising_unavailable():
        return bool(filesystem().get_file_info(FILES).type == fs.FileType.Directory)


def _require_mounted(spool: fs.SubTreeFileSystem) -> None:
    if _is_folder(spool):
        require_mounted(Path(spool.base_path))


def _is_folder(spool: fs.SubTreeFileSystem) -> bool:
    return isinstance(spool.base_fs, fs.LocalFileSystem)


def is_spooled(location: str) -> bool:
    """Return True if a file is in the spool, so that this application may remove it."""
    return location.startswith(SCHEME)


def owner_of(location: str) -> str:
    """Return the owner of a file in the spool, as passed to `writing`, or an empty text if it has none."""
    folder = location.removeprefix(f"{SCHEME}{FILES}/").rpartition("/")[0]
    return folder if location.startswith(f"{SCHEME}{FILES}/") else ""


def locate(text: str) -> tuple[str, Source]:
    """Return the location for the ledger, and the source, of a file that a user names by path or URL.

    Raises:
        BadInput: pyarrow does not support the URL, or it has credentials, which must not be stored in the ledger.
    """
    if "://" in text:
        parts = urlsplit(text)
        if parts.username or parts.password:
            raise BadInput(
                text.replace(f"{parts.netloc.rpartition('@')[0]}@", "…@"),
                "credentials are not allowed in a URL; set them in the environment, for example AWS_ACCESS_KEY_ID",
            )
        return text, _source_at(text, text)
    path = str(Path(text).resolve())
    try:
        path.encode()
    except UnicodeEncodeError:
        raise BadInput(repr(text), "the file name is not valid UTF-8; rename the file") from None
    return path, Source.local(Path(path))


def source_of(location: str, name: str) -> Source:
    """Return the source of a file in the ledger, on any machine."""
    if is_spooled(location):
        return Source(filesystem(), location.removeprefix(SCHEME), name, is_spooled=True)
    if "://" in location:
        return _source_at(location, name)
    return Source(fs.LocalFileSystem(), location, name)


def _source_at(url: str, name: str) -> Source:
    try:
        base, path = fs.FileSystem.from_uri(url)
    except pa.ArrowException as error:
        raise BadInput(name, f"unsupported URL: {error}") from None
    except OSError as error:
        raise StorageUnavailableError(name, one_line(error), error.errno) from error
    return Source(base, path, name)


def require_room(size_bytes: int = 0) -> None:
    """Check that an input leaves INGEST_SPOOL_MIN_FREE_BYTES of the disk free; an object store is not limited.

    Rejected rows may use the reserve, because no batch is loaded, and so no input removed, without writing them.

    Raises:
        SpoolFullError: less would be free.
        StorageUnavailableError: the spool is not mounted.
    """
    with _raising_unavailable():
        spool = filesystem()
        if not _is_folder(spool):
            return
        _require_mounted(spool)
        disk = os.statvfs(spool.base_path)
    free_bytes = disk.f_bavail * disk.f_frsize
    if free_bytes - size_bytes < settings.INGEST_SPOOL_MIN_FREE_BYTES:
        raise SpoolFullError(free_bytes, settings.INGEST_SPOOL_MIN_FREE_BYTES)


def used_bytes(owner: str, *, besides: str) -> int:
    """Return the size of an owner's inputs in the spool, including those that are being written.

    Args:
        owner: the owner, as passed to `writing`.
        besides: the location of a file to leave out.
    """
    return sum(entry.size_bytes for entry in entries(f"{FILES}/{owner}") if entry.location != besides)


@contextmanager
def writing(ending: str, owner: str = "") -> Iterator[Spooled]:
    """Open a new file for writing for the length of a block; if the block fails, the file is removed.

    At the end of the block, the file is flushed to disk, unless the spool is an object store.

    Args:
        ending: the ending of the file's name.
        owner: the owner, whose files are in a folder of their own; empty for none.

    Raises:
        SpoolFullError: there is no room for another file.
        StorageUnavailableError: the spool cannot be written to at present.
    """
    require_room()
    path = f"{FILES}/{owner}/{uuid.uuid4().hex}{ending}" if owner else f"{FILES}/{uuid.uuid4().hex}{ending}"
    try:
        with _raising_unavailable(), _output(path) as sink:
            yield Spooled(SCHEME + path, sink)
    except BaseException:
        with suppress(StorageUnavailableError):  # raise the first error; clean_spool removes what is left
            discard(SCHEME + path)
        raise


@contextmanager
def rewriting(path: str) -> Iterator[pa.NativeFile]:
    """Open a file in the spool for writing for the length of a block, and replace an existing one.

    Raises:
        StorageUnavailableError: the spool cannot be written to at present.
    """
    with _raising_unavailable(), _output(path, buffer_size=COPY_BYTES) as sink:
        yield sink


@contextmanager
def _raising_unavailable() -> Iterator[None]:
    """Raise errors of a block as errors of the spool, which are never the input's fault."""
    try:
        yield
    except StorageUnavailableError:
        raise
    except OSError as error:
        raise StorageUnavailableError(NAME, one_line(error), error.errno) from error


@contextmanager
def _output(path: str, buffer_size: int | None = None) -> Iterator[pa.NativeFile]:
    spool = filesystem()
    _make_folder(spool, str(Path(path).parent))
    with spool.open_output_stream(path, buffer_size=buffer_size) as sink:
        yield sink
    _sync(spool, path)


def _make_folder(spool: fs.SubTreeFileSystem, path: str) -> None:
    if _is_folder(spool):  # an object store has no folders
        _require_mounted(spool)
        spool.create_dir(path, recursive=True)


def _sync(spool: fs.SubTreeFileSystem, path: str) -> None:
    """Flush a file and its entry in its folder to disk."""
    if not _is_folder(spool):
        return
    for name in (Path(spool.base_path) / path, (Path(spool.base_path) / path).parent):
        descriptor = os.open(name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def copy_into(source: Source, ending: str, compression: str) -> str:
    """Copy a file into the spool, unpacked, and return its location there.

    Raises:
        BadInput: the file cannot be read or unpacked.
        StorageUnavailableError: the file or the spool cannot be used at present.
    """
    with source.open() as packed, writing(ending) as spooled:
        try:
            for piece in unpacked(_SourceFile(source, packed), compression):
                require_room(len(piece))
                spooled.sink.write(piece)
        except UnpackError as error:
            raise BadInput(source, str(error)) from None
    return spooled.location


@dataclass(frozen=True)
class _SourceFile:
    """An open file of a source, whose errors name the source and not the spool that it is copied into."""

    source: Source
    file: pa.NativeFile

    def read(self, size: int = -1, /) -> bytes:
        with self.source.classifying_errors():
            return bytes(self.file.read(size))


def discard(location: str) -> None:
    """Remove a file from the spool, if it exists.

    Raises:
        StorageUnavailableError: it cannot be removed at present.
    """
    with _raising_unavailable(), suppress(FileNotFoundError):
        filesystem().delete_file(location.removeprefix(SCHEME))


def exists(location: str) -> bool:
    """Return True if a file is in the spool.

    Raises:
        StorageUnavailableError: the spool cannot be read at present.
    """
    with _raising_unavailable():
        spool = filesystem()
        _require_mounted(spool)
        return bool(spool.get_file_info(location.removeprefix(SCHEME)).type == fs.FileType.File)


def entries(folder: str) -> Iterator[Entry]:
    """Yield the files in a folder of the spool, and in its subfolders.

    Raises:
        StorageUnavailableError: the spool cannot be listed at present.
    """
    with _raising_unavailable():
        found = filesystem().get_file_info(fs.FileSelector(folder, allow_not_found=True, recursive=True))
    for info in found:
        if info.type == fs.FileType.File:
            yield Entry(SCHEME + info.path, info.size, info.mtime)
