"""The files of a job: how they are opened, and when those in the spool may be removed.

An input is removed only when its job is known to be finished (`telemetry.retention`), or known not to exist. Once
COMMIT may have been sent, a job may exist although its client never got the answer, so the file stays; if the job does
not exist, `clean_spool` removes the file later.
"""

from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from telemetry import formats, spool
from telemetry.formats import Format, StorageUnavailableError


@dataclass(frozen=True)
class InputFile:
    """A file to load."""

    name: str
    """name that its sender uses"""
    location: str
    """where workers read it: a path, a URL, or a name in the spool"""
    format: Format


class Inputs(list[InputFile]):
    """The files of a job that is being recorded.

    As a context manager, it removes the files that are in the spool if its block fails, unless a transaction that
    refers to them may have been committed.
    """

    may_be_recorded = False
    """True from the last step before COMMIT on, when the job may exist even if this process gets an error"""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self.may_be_recorded:
            with suppress(StorageUnavailableError):  # raise the first error; clean_spool removes what is left
                self.discard()

    def discard(self) -> None:
        """Remove the files that are in the spool.

        Raises:
            StorageUnavailableError: a file cannot be removed at present.
        """
        for file in self:
            if spool.is_spooled(file.location):
                spool.discard(file.location)


def open_input(text: str, *, into_spool: bool = False) -> InputFile:
    """Return the file at a path or URL; its format is recognised by its name.

    Args:
        text: the path or the URL.
        into_spool: copy the file to the spool, for workers that cannot read it. Compressed files are always unpacked
            into the spool.

    Raises:
        BadInput: the file does not exist, cannot be read, or its ending is not that of a known format.
    """
    written = formats.recognise(urlsplit(text).path if "://" in text else text)
    location, source = spool.locate(text)
    source.stamp()
    if into_spool or written.compression:
        location = spool.copy_into(source, written.format.endings[0], written.compression)
    return InputFile(source.name, location, written.format)
