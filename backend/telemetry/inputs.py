"""The files of a job: how they are opened, and when those in the spool may be removed again.

An input is removed only when its job is known to be finished (`telemetry.retention`), or known not to exist. Once
COMMIT may have been sent, a job may exist although its client never got the answer, so the file stays: if there is no
job after all, `clean_spool` removes it later.
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
    """A file that is to be loaded."""

    name: str
    """as its sender knows it"""
    location: str
    """where workers read it: a path, a URL, or a name in the spool"""
    format: Format


class Inputs(list[InputFile]):
    """The files of a job that is being recorded.

    As a context manager it removes those of them that are in the spool when its block fails, unless a transaction that
    refers to them may have been committed.
    """

    may_be_recorded = False
    """True from the last step before COMMIT on: from then on the job may exist, whatever this process is told."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self.may_be_recorded:
            with suppress(StorageUnavailableError):  # the first error tells more; clean_spool removes what is left
                self.discard()

    def discard(self) -> None:
        """Remove from the spool what is there of them.

        Raises:
            StorageUnavailableError: a file cannot be removed at present.
        """
        for file in self:
            if spool.is_spooled(file.location):
                spool.discard(file.location)


def open_input(text: str, *, into_spool: bool = False) -> InputFile:
    """Find a file by its path or URL, and tell its format by its name.

    Args:
        text: the path or the URL.
        into_spool: copy it, so that workers need not see where it is. A compressed one is unpacked there anyway.

    Raises:
        BadInput: the file does not exist, it may not be read, or its ending belongs to no known format.
    """
    written = formats.recognise(urlsplit(text).path if "://" in text else text)
    location, source = spool.locate(text)
    source.stamp()
    if into_spool or written.compression:
        location = spool.take_in(source, written.format.endings[0], written.compression)
    return InputFile(source.name, location, written.format)
