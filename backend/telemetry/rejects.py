"""The rows that could not be read: a file for each batch, an object of JSON a line, in the job's folder of the spool.

An object store knows no appending; and a batch that is tried again writes its file anew, so no row is listed twice.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from types import TracebackType
from typing import Any

import pyarrow as pa

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
    """Writes a batch's rejects as they are met, for the length of a block; without any there is no file.

    What is in the file counts only if the batch's counts in the ledger say so. If the block fails, they do not.
    """

    def __init__(self, batch: IngestBatch) -> None:
        self._batch = batch
        self._file = ExitStack()
        self._sink: pa.NativeFile | None = None

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
            if self._sink is None:
                self._sink = self._file.enter_context(spool.rewriting(_path(self._batch.job_id, self._batch.pk)))
            self._sink.write(_line(self._batch.file.name, reject))


def _line(file: str, reject: Reject) -> bytes:
    fields = {
        "file": file,
        "line": reject.line,
        "column": reject.column,
        "reason": str(reject.fault),
        "detail": reject.detail,
        "raw": reject.raw,
    }
    return f"{json.dumps(fields, ensure_ascii=False)}\n".encode()


def read(job_id: int) -> Iterator[dict[str, Any]]:
    """Give a job's rejects in the order of its files: file, line, column, reason, detail, raw.

    The database is asked at once; what is left to do while they are read is with the spool.

    Raises:
        OSError: while they are read, a file of them is gone from the spool, or cannot be read.
    """
    batches = IngestBatch.objects.filter(job_id=job_id, rejected_count__gt=0).order_by("pk")
    return chain.from_iterable(_read_batch(job_id, batch_id) for batch_id in list(batches.values_list("pk", flat=True)))


def _read_batch(job_id: int, batch_id: int) -> Iterator[dict[str, Any]]:
    with spool.filesystem().open_input_file(_path(job_id, batch_id)) as file:
        yield from map(json.loads, io.BufferedReader(file))


def _path(job_id: int, batch_id: int) -> str:
    return f"{FOLDER}/{job_id}/{batch_id}.ndjson"


def job_of(location: str) -> int | None:
    """Say whose rejects a file of the spool holds; None if it is none of rejects."""
    parts = location.split("/")
    return int(parts[1]) if len(parts) == 3 and parts[1].isdecimal() else None
