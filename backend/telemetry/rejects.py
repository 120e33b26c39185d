"""Rejected rows: an NDJSON file for each batch, in the job's folder of the spool.

There is a file per batch because an object store cannot append, and because a batch that is tried again rewrites its
file, so that no row is listed twice.

A line is much larger than a short row, so a file lists the first rows of its batch up to INGEST_REJECTS_MAX_BYTES. The
ledger counts all rows; those that are not listed are summed up in one more line.
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
    """Counts the rejected rows of a batch by reason and column, and keeps the first."""

    def __init__(self) -> None:
        self.by_reason: Counter[tuple[str, str]] = Counter()
        self.first: Reject | None = None

    @property
    def rows(self) -> int:
        """The number of rejected rows."""
        return self.by_reason.total()

    def add(self, rejects: Sequence[Reject]) -> None:
        """Count more rejected rows."""
        self.by_reason.update((str(reject.fault), reject.column) for reject in rejects)
        if self.first is None and rejects:
            self.first = rejects[0]


class Writer:
    """Writes a batch's rejected rows while the batch is read, for the length of a block; without any, creates no file.

    The first row is always written, the others while the file stays below INGEST_REJECTS_MAX_BYTES.

    The file is only read if the ledger counts rejected rows of the batch, which it does not if the block fails.
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
        """Write more rejected rows.

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
            elif self._left_bytes < 0:  # the list ends here, even if a shorter row would still fit
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
    """Rejected rows of a batch that are counted but not listed."""

    file: str
    unlisted_rows: int
    detail: str


@dataclass(frozen=True)
class _Listed:
    """The ledger's record of a batch with rejected rows."""

    job_id: int
    batch_id: int
    file: str
    location: str
    rows: int
    finished_at: datetime | None


def read(job_id: int) -> Iterator[dict[str, Any]]:
    """Return a job's rejected rows in the order of its files, each with file, line, column, reason, detail and raw.

    If a batch has more than its file lists, its last item has file, unlisted_rows and detail.

    The database is queried by this call; iterating only reads the spool.

    Raises:
        OSError: while iterating, a file is missing from the spool or cannot be read.
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
        yield asdict(Unlisted(batch.file, unlisted_rows, _unlisted_detail(unlisted_rows)))


def _lines(batch: _Listed) -> Iterator[bytes]:
    try:
        with _open(batch) as file:
            yield from io.BufferedReader(file)
    except FileNotFoundError:
        if not (_is_expired(batch) and spool.is_mounted()):
            raise


def _open(batch: _Listed) -> pa.NativeFile:
    """Open a batch's file; older versions wrote those of uploads outside their owner's folder."""
    files = spool.filesystem()
    try:
        return files.open_input_file(_path(batch.job_id, batch.batch_id, spool.owner_of(batch.location)))
    except FileNotFoundError:
        return files.open_input_file(_path(batch.job_id, batch.batch_id, ""))


def _is_expired(batch: _Listed) -> bool:
    return batch.finished_at is not None and batch.finished_at < expired_before()


def expired_before() -> datetime:
    """Return the time before which files of rejected rows have expired."""
    return timezone.now() - timedelta(seconds=settings.INGEST_REJECTS_KEEP_S)


def _unlisted_detail(rows: int) -> str:
    return (
        f"{rows:,} more rejected rows of a batch are counted but not listed; the list of a batch is limited to "
        f"{settings.INGEST_REJECTS_MAX_BYTES:,} bytes (INGEST_REJECTS_MAX_BYTES) and kept for "
        f"{settings.INGEST_REJECTS_KEEP_S:,} s (INGEST_REJECTS_KEEP_S)"
    )


def used_bytes(owner: str) -> int:
    """Return the size in the spool of the rejected rows of an owner's inputs."""
    return sum(entry.size_bytes for entry in spool.entries(_folder(owner)))


def _folder(owner: str) -> str:
    return f"{FOLDER}/of-{owner}" if owner else FOLDER


def _path(job_id: int, batch_id: int, owner: str) -> str:
    return f"{_folder(owner)}/{job_id}/{batch_id}.ndjson"


def job_of(location: str) -> int | None:
    """Return the job whose rejected rows a file in the spool has, or None if it is not such a file."""
    parts = location.split("/")
    return int(parts[-2]) if len(parts) in (3, 4) and parts[-2].isdecimal() else None
