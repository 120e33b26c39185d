"""The rows that could not be read: a file for each batch, an object of JSON a line, in the job's folder of the spool.

An object store knows no appending; and a batch that is tried again writes its file anew, so no row is listed twice.

A line is larger than a short row by far, so a file lists the first rows of its batch up to INGEST_REJECTS_MAX_BYTES.
The counts of the ledger are of all rows: what they exceed the file by is read as one more line.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import chain
from types import TracebackType
from typing import Any

import pyarrow as pa
from django.conf import settings
from django.utils import timezone

from telemetry import spool
from telemetry.formats import Reject
from telemetry.models import IngestBatch

FOLDER = "rejects"


class Tally:
    """How many rows of a batch were rejected, by reason and column, and the first of them."""

    def __init__(self) -> None:
        self.by_reason: Counter[tuple[str, str]] = Counter()
        self.first: Reject | None = None

    @property
    def rows(self) -> int:
        """How many there are in all."""
        return self.by_reason.total()

    def add(self, rejects: Sequence[Reject]) -> None:
        """Count some more."""
        self.by_reason.update((str(reject.fault), reject.column) for reject in rejects)
        if self.first is None and rejects:
            self.first = rejects[0]


class Writer:
    """Write a batch's rejects while they are read, for the length of a block; without rejects no file is made.

    The first is always written, the next ones while the file stays below INGEST_REJECTS_MAX_BYTES.

    What is in the file counts only if the batch's counts in the ledger say so. If the block fails, they do not.
    """

    def __init__(self, batch: IngestBatch) -> None:
        self._batch = batch
        self._file = ExitStack()
        self._sink: pa.NativeFile | None = None
        self._left_bytes: int = settings.INGEST_REJECTS_MAX_BYTES

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)

    def write(self, rejects: Sequence[Reject]) -> None:
        """Write some more.

        Raises:
            OSError: the spool cannot be written to.
        """
        for reject in rejects:
            if self._sink is not None and self._left_bytes <= 0:
                return
            line = _line(reject)
            self._left_bytes -= len(line)
            if self._sink is None:
                self._sink = self._file.enter_context(spool.rewriting(self._path()))
            elif self._left_bytes < 0:  # from here on none is listed, even if a shorter one would fit
                return
            self._sink.write(line)

    def _path(self) -> str:
        batch = self._batch
        return _path(batch.job_id, batch.pk, spool.owner_of(batch.file.location))


def _line(reject: Reject) -> bytes:
    fields = {
        "line": reject.line,
        "column": reject.column,
        "reason": str(reject.fault),
        "detail": reject.detail,
        "raw": reject.raw,
    }
    return f"{json.dumps(fields, ensure_ascii=False)}\n".encode()


@dataclass(frozen=True)
class Unlisted:
    """Rows of a batch that were rejected and are not listed."""

    file: str
    unlisted_rows: int
    detail: str


@dataclass(frozen=True)
class _Listed:
    """What the ledger has of a batch with rejects."""

    job_id: int
    batch_id: int
    file: str
    location: str
    rows: int
    finished_at: datetime | None


def read(job_id: int) -> Iterator[dict[str, Any]]:
    """Return a job's rejects in the order of its files: file, line, column, reason, detail, raw.

    Where a batch has more of them than its file lists, the last is of the others: file, unlisted_rows, detail.

    The database is asked at once; what is left to do while they are read is with the spool.

    Raises:
        OSError: while they are read, a file of them is gone from the spool, or cannot be read.
    """
    batches = IngestBatch.objects.filter(job_id=job_id, rejected_count__gt=0).order_by("pk")
    found = batches.values_list("job_id", "pk", "file__name", "file__location", "rejected_count", "finished_at")
    return chain.from_iterable(_read_batch(_Listed(*fields)) for fields in list(found))


def _read_batch(batch: _Listed) -> Iterator[dict[str, Any]]:
    listed_rows = 0
    for line in _lines(batch):
        listed_rows += 1
        yield {"file": batch.file, **json.loads(line)}
    if unlisted_rows := batch.rows - listed_rows:
        yield asdict(Unlisted(batch.file, unlisted_rows, _why(unlisted_rows)))


def _lines(batch: _Listed) -> Iterator[bytes]:
    try:
        with _open(batch) as file:
            yield from io.BufferedReader(file)
    except FileNotFoundError:
        if not (_is_expired(batch) and spool.is_mounted()):
            raise


def _open(batch: _Listed) -> pa.NativeFile:
    """Open a batch's file; those of uploads had no folder of their owner once."""
    files = spool.filesystem()
    try:
        return files.open_input_file(_path(batch.job_id, batch.batch_id, spool.owner_of(batch.location)))
    except FileNotFoundError:
        return files.open_input_file(_path(batch.job_id, batch.batch_id, ""))


def _is_expired(batch: _Listed) -> bool:
    return batch.finished_at is not None and batch.finished_at < expired_before()


def expired_before() -> datetime:
    """Return the time of change before which a file of rejects is not kept."""
    return timezone.now() - timedelta(seconds=settings.INGEST_REJECTS_KEEP_S)


def _why(rows: int) -> str:
    return (
        f"{rows:,} more rows of a batch were rejected; they are counted and not listed: a batch lists "
        f"{settings.INGEST_REJECTS_MAX_BYTES:,} bytes (INGEST_REJECTS_MAX_BYTES) for "
        f"{settings.INGEST_REJECTS_KEEP_S:,} s (INGEST_REJECTS_KEEP_S)"
    )


def used_bytes(owner: str) -> int:
    """Return how many bytes the rejects of an owner's inputs have in the spool."""
    return sum(entry.size_bytes for entry in spool.entries(_folder(owner)))


def _folder(owner: str) -> str:
    return f"{FOLDER}/of-{owner}" if owner else FOLDER


def _path(job_id: int, batch_id: int, owner: str) -> str:
    return f"{_folder(owner)}/{job_id}/{batch_id}.ndjson"


def job_of(location: str) -> int | None:
    """Return whose rejects a file of the spool holds; None if it is none of rejects."""
    parts = location.split("/")
    return int(parts[-2]) if len(parts) in (3, 4) and parts[-2].isdecimal() else None
