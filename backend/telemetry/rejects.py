"""The rows that could not be read: a file for each batch, an object of JSON a line, in the job's folder of the spool.

An object store knows no appending; and a batch that is tried again writes its file anew, so no row is listed twice.
"""

import io
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from telemetry import spool
from telemetry.formats import Reject
from telemetry.models import IngestBatch

FOLDER = "rejects"


def write(batch: IngestBatch, rejects: Sequence[Reject]) -> None:
    """Keep a batch's rejects; its counts in the ledger say whether they hold."""
    if not rejects:
        return
    with spool.rewriting(_path(batch.job_id, batch.pk)) as sink:
        for reject in rejects:
            line = {
                "file": batch.file.name,
                "line": reject.line,
                "column": reject.column,
                "reason": str(reject.fault),
                "detail": reject.detail,
                "raw": reject.raw,
            }
            sink.write(f"{json.dumps(line, ensure_ascii=False)}\n".encode())


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
