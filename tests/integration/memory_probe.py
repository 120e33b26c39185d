"""Enqueue a file and load its batches in a separate process, and print the memory that this took.

Its argument is a JSON object: the file, its columns, the rows per batch, and how many of the last batches to load.
"""

import json
import sys
from pathlib import Path
from typing import Any

import django


def peak_bytes() -> int:
    """Return the peak resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def main(path: str, columns: dict[str, Any], batch_rows: int, load_last: int) -> dict[str, Any]:
    """Return the peaks beyond the idle size, the size of a slice in the ledger, and the results of the batches."""
    from telemetry.formats import BadInput, Columns
    from telemetry.inputs import Inputs, open_input
    from telemetry.intake import create_job
    from worker.tasks import load_batch

    def enqueue(path: str, columns: Columns, batch_rows: int) -> list[Any]:
        return list(create_job(Inputs([open_input(path)]), columns, batch_rows=batch_rows).batches.order_by("pk"))

    # What a process takes that has loaded a batch before: its imports, its connection, the allocators' arenas.
    small = Path(path).with_name("small.csv")
    small.write_text("time,device,load\n2001-05-01T00:00Z,a,1\n")
    for batch in enqueue(str(small), Columns("time", ("device",), ("load",)), 10):
        load_batch(batch.pk)
    idle_bytes = peak_bytes()
    try:
        batches = enqueue(
            path, Columns(columns["time"], tuple(columns["labels"]), tuple(columns["values"])), batch_rows
        )
    except BadInput as error:
        return {"enqueue_bytes": peak_bytes() - idle_bytes, "load_bytes": 0, "errors": [str(error)], "loaded": 0}
    enqueue_bytes = peak_bytes() - idle_bytes
    for batch in batches[-load_last:]:
        load_batch(batch.pk)
        batch.refresh_from_db()
    return {
        "enqueue_bytes": enqueue_bytes,
        "load_bytes": peak_bytes() - idle_bytes,
        "slice_bytes": max(len(json.dumps(batch.slice)) for batch in batches),
        "loaded": sum(batch.state == "done" for batch in batches[-load_last:]),
        "errors": [batch.error for batch in batches[-load_last:] if batch.error],
    }


if __name__ == "__main__":
    django.setup()
    sys.stdout.write(json.dumps(main(**json.loads(sys.argv[1]))))
