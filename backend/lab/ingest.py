r"""How fast is the ingest path? It is compared, in turn and on one server, with four other ways into the same table.

psql       `\copy` of the same rows as CSV, with series ids instead of labels, over two connections
poolhouse  `enqueue_ingest` of the CSV, through Redis and a worker with two processes, to the last commit
limit      the same rows sorted and encoded beforehand, COPYed over two connections in the order of the file
spread     the same, in the order in which Poolhouse enqueues its batches
django     `bulk_create` of a tenth of the rows
"""

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import pgpq
import pyarrow as pa
import pyarrow.csv as pa_csv

from config.env import CHECKOUT, Database, read
from sandbox.isolation import connect, superuser_sql
from sandbox.processes import wait_or_kill_group
from sandbox.servers import HOST, POSTGRES_BIN, Place
from telemetry.generate import SCHEMA, Fleet, write

DEVICES = 1000
BATCH_ROWS = 100_000
CONNECTIONS = 2
MINUTE_US = 60_000_000
DJANGO_SHARE = 10
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
WORKER_STOP_TIMEOUT_S = 10
# Each poll takes processor time from the work, and adds up to this much to Poolhouse's time.
POLL_INTERVAL_S = 0.02
READINGS = pa.schema([SCHEMA.field("time"), ("series_id", pa.int32()), ("value", pa.float64())])


@dataclass(frozen=True)
class Material:
    """The same rows in the form that each loader takes."""

    csv: Path
    halves: list[Path]
    encoded: list[bytes]
    row_count: int


def fleet_of(rows: int) -> Fleet:
    """Return a thousand devices that measure once per minute, for as long as it takes to get this many rows."""
    return Fleet(DEVICES, MINUTE_US, BEGIN, BEGIN + timedelta(minutes=rows // DEVICES), seed=1)


def write_csv(folder: Path, rows: int) -> Path:
    """Write the rows as CSV for Poolhouse."""
    path = folder / "readings.csv"
    for _ in write(fleet_of(rows), path):
        pass
    return path


def prepare(folder: Path, rows: int) -> Material:
    """Write the CSV, and the prepared input of the other loaders."""
    batches = list(_batches_with_ids(fleet_of(rows)))
    halves = [folder / f"half-{number}.csv" for number in range(CONNECTIONS)]
    table = pa.Table.from_batches(batches)
    share = -(-table.num_rows // CONNECTIONS)
    for number, half in enumerate(halves):
        part = table.slice(number * share, share)
        pa_csv.write_csv(part, half, pa_csv.WriteOptions(include_header=False))
    return Material(
        write_csv(folder, rows), halves, [_encode_sorted(batch) for batch in batches], fleet_of(rows).row_count
    )


def _batches_with_ids(fleet: Fleet) -> Iterator[pa.RecordBatch]:
    for block in fleet.blocks():
        ids = pa.array(np.tile(np.arange(1, DEVICES + 1, dtype=np.int32), block.num_rows // DEVICES))
        yield pa.RecordBatch.from_arrays([block["time"], ids, block["value"]], schema=READINGS)


def _encode_sorted(batch: pa.RecordBatch) -> bytes:
    ordered = batch.sort_by([("series_id", "ascending"), ("time", "ascending")])
    encoder = pgpq.ArrowToPostgresBinaryEncoder(READINGS)
    return bytes(encoder.write_header() + encoder.write_batch(ordered) + encoder.finish())


@dataclass(frozen=True)
class Ways:
    """The five loaders; each loads into the empty table and returns the number of its rows."""

    place: Place
    material: Material

    def psql(self) -> int:
        """COPY the halves as CSV with two concurrent psql processes."""
        with ExitStack() as ended:
            started = [ended.enter_context(self._start_psql(half)) for half in self.material.halves]
            for process in started:
                ended.callback(process.terminate)
            if sum(process.wait() for process in started):  # wait for each, even if another failed
                raise RuntimeError("psql failed")
        return self.material.row_count

    def _start_psql(self, half: Path) -> "subprocess.Popen[bytes]":
        database = read(Database)
        inside = f"/data/{half.relative_to(self.place.data)}"
        copy = f"\\copy reading (time, series_id, value) from '{inside}' with (format csv)"
        server = ["-h", HOST, "-p", str(database.db_port), "-U", database.db_user, "-d", database.db_name]
        command = [f"{POSTGRES_BIN}/psql", "-q", "-v", "ON_ERROR_STOP=1", *server, "-c", copy]
        environment = {**os.environ, "PGPASSWORD": database.db_pass.get_secret_value()}  # noqa: TID251 - handed on
        return subprocess.Popen(self.place.command(command), env=environment, start_new_session=True)

    def poolhouse(self) -> int:
        """Enqueue the CSV, and wait for the last commit."""
        return load(self.material.csv)

    def limit(self) -> int:
        """COPY the encoded batches in the order of the file."""
        return self._copy(self.material.encoded)

    def spread(self) -> int:
        """COPY the encoded batches in the order in which Poolhouse enqueues them."""
        from telemetry.queue import spread

        return self._copy(spread(self.material.encoded, CONNECTIONS))

    def _copy(self, encoded: list[bytes]) -> int:
        """COPY batches over two connections, each in its own transaction."""
        waiting: SimpleQueue[bytes] = SimpleQueue()
        for data in encoded:
            waiting.put(data)
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            for loaded in [threads.submit(_copy_all, waiting) for _ in range(CONNECTIONS)]:
                loaded.result()
        return self.material.row_count

    def django(self) -> int:
        """Save a tenth of the rows with bulk_create."""
        from telemetry.models import Reading

        fleet = fleet_of(self.material.row_count // DJANGO_SHARE)
        for batch in _batches_with_ids(fleet):
            rows = zip(*(batch[name].to_pylist() for name in READINGS.names), strict=True)
            readings = [Reading(time=at, series_id=series_id, value=value) for at, series_id, value in rows]
            Reading.objects.bulk_create(readings, batch_size=10_000)
        return fleet.row_count


def load(csv: Path) -> int:
    """Load a CSV through the queue; return the number of inserted readings after the last commit."""
    from telemetry.formats import Columns
    from telemetry.inputs import Inputs, open_input
    from telemetry.intake import announce, create_job
    from telemetry.queries import job_progress

    job = create_job(Inputs([open_input(str(csv))]), Columns("time", ("device",), ("value",)), batch_rows=BATCH_ROWS)
    announce(job.pk)
    while _has_queued_batches(job.pk):
        time.sleep(POLL_INTERVAL_S)
    progress = job_progress(job.pk)
    if progress is None or progress.state != "done":
        raise RuntimeError(f"the job was not loaded: {progress}")
    return progress.inserted


def _has_queued_batches(job_id: int) -> bool:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM ingest_batch WHERE job_id = %s AND state = 'queued')", [job_id])
        (found,) = cursor.fetchone()
        return bool(found)


def _copy_all(waiting: "SimpleQueue[bytes]") -> None:
    connection = connect(read(Database))
    try:
        while True:
            data = io.BytesIO(waiting.get_nowait())
            with connection, connection.cursor() as cursor:
                cursor.copy_expert("COPY reading (time, series_id, value) FROM STDIN (FORMAT binary)", data, 1 << 20)
    except Empty:
        return
    finally:
        connection.close()


@contextmanager
def worker(log: Path) -> Iterator[int]:
    """Run the real worker with two processes for the length of a block; yield the pid of their parent."""
    command = [
        str(Path(sys.executable).parent / "celery"),
        "-A",
        "worker.app",
        "worker",
        "--without-gossip",
        "--without-mingle",
    ]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--queues", "ingest", "--concurrency", str(CONNECTIONS), "--loglevel", "WARNING"],
            cwd=CHECKOUT,
            env={**os.environ, "SERVICE_NAME": "worker"},  # noqa: TID251 - handed on
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C must reach this process alone
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        wait_or_kill_group(process, WORKER_STOP_TIMEOUT_S)  # without waiting for a batch that it is loading


def empty_table() -> None:
    """Start a round like the one before: with no rows, and no dirty pages left to write."""
    superuser_sql("TRUNCATE reading", database=read(Database).db_name)
    superuser_sql("CHECKPOINT")
