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

from telemetry.formats import SPOOL_MARKER, BadInput, Source, StorageUnavailableError, require_mounted
from telemetry.unpacking import UnpackError, unpacked

# Where a file in the spool is: this and its path there, since each machine may see the spool at another place.
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
    """The disk of the spool has no room for another input."""

    def __init__(self, free_bytes: int, floor_bytes: int) -> None:
        super().__init__(
            NAME,
            f"its disk has {free_bytes:,} bytes free, and {floor_bytes:,} must stay free (INGEST_SPOOL_MIN_FREE_BYTES)",
            ENOSPC,
        )


def filesystem() -> fs.SubTreeFileSystem:
    """Give the spool as a filesystem, as INGEST_SPOOL says.

    Raises:
        pyarrow.ArrowInvalid, OSError: its URL is none that pyarrow knows, or it cannot be reached.
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
    """Make the spool's folder and its marker; an object store needs neither.

    No request does this: the folder may be the mount point of a volume that is not mounted.

    Raises:
        StorageUnavailableError: the folder cannot be made or written to.
    """
    with _judging_errors():
        spool = filesystem()
        if _is_folder(spool):
            root = Path(spool.base_path)
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            (root / SPOOL_MARKER).touch()


def is_mounted() -> bool:
    """Return True if the spool's folder has its marker, or the spool is an object store."""
    try:
        _require_mounted(filesystem())
    except StorageUnavailableError:
        return False
    return True


def require_present() -> None:
    """Refuse a spool that is not there, before it is taken for an empty one.

    Raises:
        StorageUnavailableError: its folder lacks the marker, for example because its volume is not mounted.
    """
    _require_mounted(filesystem())


def was_used() -> bool:
    """Return True if inputs were ever written to the spool's folder; the folder for them stays when they are removed.

    Raises:
        StorageUnavailableError: the spool cannot be asked at present.
    """
    with _judging_errors():
        return bool(filesystem().get_file_info(FILES).type == fs.FileType.Directory)


def _require_mounted(spool: fs.SubTreeFileSystem) -> None:
    if _is_folder(spool):
        require_mounted(Path(spool.base_path))


def _is_folder(spool: fs.SubTreeFileSystem) -> bool:
    return isinstance(spool.base_fs, fs.LocalFileSystem)


def is_spooled(location: str) -> bool:
    """Say whether a file is in the spool, and so ours to remove."""
    return location.startswith(SCHEME)


def owner_of(location: str) -> str:
    """Return whose a file of the spool is, as given to `writing`; empty: nobody's in particular, or no such file."""
    folder = location.removeprefix(f"{SCHEME}{FILES}/").rpartition("/")[0]
    return folder if location.startswith(f"{SCHEME}{FILES}/") else ""


def locate(text: str) -> tuple[str, Source]:
    """Find a file that somebody names, by path or by URL; give its location for the ledger too.

    Raises:
        BadInput: the URL is none that pyarrow knows, or it holds a password, which a ledger is no place for.
    """
    if "://" in text:
        parts = urlsplit(text)
        if parts.username or parts.password:
            raise BadInput(
                text.replace(f"{parts.netloc.rpartition('@')[0]}@", "…@"),
                "credentials do not belong into a URL; the environment may have them, as AWS_ACCESS_KEY_ID",
            )
        return text, _source_at(text, text)
    path = str(Path(text).resolve())
    try:
        path.encode()
    except UnicodeEncodeError:
        raise BadInput(repr(text), "its name is not UTF-8; rename it") from None
    return path, Source.local(Path(path))


def source_of(location: str, name: str) -> Source:
    """Find a file of the ledger, on whatever machine."""
    if is_spooled(location):
        return Source(filesystem(), location.removeprefix(SCHEME), name, is_spooled=True)
    if "://" in location:
        return _source_at(location, name)
    return Source(fs.LocalFileSystem(), location, name)


def _source_at(url: str, name: str) -> Source:
    try:
        base, path = fs.FileSystem.from_uri(url)
    except pa.ArrowException as error:
        raise BadInput(name, f"this URL cannot be used: {error}") from None
    except OSError as error:
        raise StorageUnavailableError(name, " ".join(str(error).split()), error.errno) from error
    return Source(base, path, name)


def require_room(size_bytes: int = 0) -> None:
    """Refuse an input that would leave less than INGEST_SPOOL_MIN_FREE_BYTES of the disk; a URL's space is not known.

    Rejects may use what is left: without them no batch is loaded, and no input is removed.

    Raises:
        SpoolFullError: there would be less.
        StorageUnavailableError: the spool is not mounted.
    """
    with _judging_errors():
        spool = filesystem()
        if not _is_folder(spool):
            return
        _require_mounted(spool)
        disk = os.statvfs(spool.base_path)
    free_bytes = disk.f_bavail * disk.f_frsize
    if free_bytes - size_bytes < settings.INGEST_SPOOL_MIN_FREE_BYTES:
        raise SpoolFullError(free_bytes, settings.INGEST_SPOOL_MIN_FREE_BYTES)


def used_bytes(owner: str, *, besides: str) -> int:
    """Return how many bytes an owner's inputs have in the spool, those that are being written included.

    Args:
        owner: as given to `writing`.
        besides: the location of a file that is not counted.
    """
    return sum(entry.size_bytes for entry in entries(f"{FILES}/{owner}") if entry.location != besides)


@contextmanager
def writing(ending: str, owner: str = "") -> Iterator[Spooled]:
    """Write a new file for the length of a block; if the block fails, there is none.

    When the block is over, a file on this machine has reached the disk.

    Args:
        ending: of the file's name.
        owner: a folder of its own, whose size `used_bytes` returns; empty: none.

    Raises:
        SpoolFullError: there is no room for another file.
        StorageUnavailableError: the spool cannot be written to at present.
    """
    require_room()
    path = f"{FILES}/{owner}/{uuid.uuid4().hex}{ending}" if owner else f"{FILES}/{uuid.uuid4().hex}{ending}"
    try:
        with _judging_errors(), _output(path) as sink:
            yield Spooled(SCHEME + path, sink)
    except BaseException:
        with suppress(StorageUnavailableError):  # the first error tells more; clean_spool removes what is left
            discard(SCHEME + path)
        raise


@contextmanager
def rewriting(path: str) -> Iterator[pa.NativeFile]:
    """Write a file of that path in the spool for the length of a block, whatever was there before.

    Raises:
        StorageUnavailableError: the spool cannot be written to at present.
    """
    with _judging_errors(), _output(path, buffer_size=COPY_BYTES) as sink:
        yield sink


@contextmanager
def _judging_errors() -> Iterator[None]:
    """Take any error of a file in a block for one of the spool, which is never the fault of an input."""
    try:
        yield
    except StorageUnavailableError:
        raise
    except OSError as error:
        raise StorageUnavailableError(NAME, " ".join(str(error).split()), error.errno) from error


@contextmanager
def _output(path: str, buffer_size: int | None = None) -> Iterator[pa.NativeFile]:
    spool = filesystem()
    _make_folder(spool, str(Path(path).parent))
    with spool.open_output_stream(path, buffer_size=buffer_size) as sink:
        yield sink
    _sync(spool, path)


def _make_folder(spool: fs.SubTreeFileSystem, path: str) -> None:
    if _is_folder(spool):  # an object store has none
        _require_mounted(spool)
        spool.create_dir(path, recursive=True)


def _sync(spool: fs.SubTreeFileSystem, path: str) -> None:
    """Wait until a file, and its entry in its folder, would survive the loss of power."""
    if not _is_folder(spool):
        return
    for name in (Path(spool.base_path) / path, (Path(spool.base_path) / path).parent):
        descriptor = os.open(name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def take_in(source: Source, ending: str, compression: str) -> str:
    """Copy a file into the spool, unpacked; return its location there.

    Raises:
        BadInput: it cannot be read, or is not what its compression says.
        StorageUnavailableError: it or the spool cannot be used at present.
    """
    with source.open() as packed, writing(ending) as spooled:
        try:
            for piece in unpacked(_Judged(source, packed), compression):
                require_room(len(piece))
                spooled.sink.write(piece)
        except UnpackError as error:
            raise BadInput(source, str(error)) from None
    return spooled.location


@dataclass(frozen=True)
class _Judged:
    """A source's open file; its errors name it, and not the spool that it is copied into."""

    source: Source
    file: pa.NativeFile

    def read(self, size: int = -1, /) -> bytes:
        with self.source.judging_errors():
            return bytes(self.file.read(size))


def discard(location: str) -> None:
    """Remove a file from the spool; one that is gone already is all right.

    Raises:
        StorageUnavailableError: it cannot be removed at present.
    """
    with _judging_errors(), suppress(FileNotFoundError):
        filesystem().delete_file(location.removeprefix(SCHEME))


def exists(location: str) -> bool:
    """Return True if a file is in the spool.

    Raises:
        StorageUnavailableError: the spool cannot be asked at present.
    """
    with _judging_errors():
        spool = filesystem()
        _require_mounted(spool)
        return bool(spool.get_file_info(location.removeprefix(SCHEME)).type == fs.FileType.File)


def entries(folder: str) -> Iterator[Entry]:
    """Yield what is in a folder of the spool, and in its folders.

    Raises:
        StorageUnavailableError: the spool cannot be listed at present.
    """
    with _judging_errors():
        found = filesystem().get_file_info(fs.FileSelector(folder, allow_not_found=True, recursive=True))
    for info in found:
        if info.type == fs.FileType.File:
            yield Entry(SCHEME + info.path, info.size, info.mtime)
