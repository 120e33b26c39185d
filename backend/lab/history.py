"""Does a long history load without harm to other clients? Daily rows of many years create many chunks and locks.

Stations follow each other in the file, each with its whole history, so every batch touches every chunk. Meanwhile a
client runs SELECT 1 on its own connection; if the server runs out of locks, it gets "out of shared memory".
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg2
from django.core.management import call_command
from django.db import connection
from rich.console import Console

from config.env import Database, read
from lab import ingest
from lab.circumstances import circumstances
from lab.progress import Progress
from sandbox.isolation import connect, isolated_servers
from telemetry.formats import Columns
from telemetry.inputs import Inputs, open_input
from telemetry.intake import announce, create_job
from telemetry.models import IngestBatch, IngestJob
from telemetry.queries import job_progress

FIRST_DAY = date(1874, 1, 1)
DAYS_PER_YEAR = 365.2425
ASK_INTERVAL_S = 0.05
POLL_INTERVAL_S = 0.2
COLUMNS = Columns("time", ("station",), ("tmax",))


@dataclass
class Answers:
    """What a client got that runs the same query again and again."""

    waits_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def measure(stations: int, years: int, console: Console) -> dict[str, Any]:
    """Load the history of a number of stations over a number of years; return counts."""
    with Progress(console) as progress, isolated_servers() as place:
        progress("writing the history and starting the worker")
        call_command("migrate", verbosity=0)
        csv = write_csv(place.data, stations, years)
        with ingest.worker(place.data / "log" / "worker.log"), asking() as answers:
            begun = time.perf_counter()
            job = create_job(Inputs([open_input(str(csv))]), COLUMNS, batch_rows=ingest.BATCH_ROWS)
            announce(job.pk)
            for warning in job.warnings:
                console.print(f"WARNING: {warning}")
            _follow(job, progress)
            elapsed_s = time.perf_counter() - begun
        return {"stations": stations, "years": years, **_result(job, answers, elapsed_s)}


def write_csv(folder: Path, stations: int, years: int) -> Path:
    """Write one row per day for each station, station after station."""
    path = folder / "history.csv"
    days = [FIRST_DAY + timedelta(days=number) for number in range(math.ceil(years * DAYS_PER_YEAR))]
    with path.open("w") as file:
        file.write("time,station,tmax\n")
        for station in range(stations):
            file.writelines(f"{day}T00:00:00Z,S{station:05},{day.toordinal() % 400 / 10}\n" for day in days)
    return path


@contextmanager
def asking() -> Iterator[Answers]:
    """Run SELECT 1 every 50 ms in a thread, for the length of a block."""
    answers, is_over = Answers(), threading.Event()

    def ask() -> None:
        client = connect(read(Database))
        client.autocommit = True
        with client.cursor() as cursor:
            while not is_over.wait(ASK_INTERVAL_S):
                begun = time.perf_counter()
                try:
                    cursor.execute("SELECT 1")
                except psycopg2.Error as error:
                    answers.errors.append(str(error).strip())
                answers.waits_ms.append((time.perf_counter() - begun) * 1e3)
        client.close()

    thread = threading.Thread(target=ask, daemon=True)  # a signal may arrive before the block has begun
    thread.start()
    try:
        yield answers
    finally:
        is_over.set()
        thread.join()


def _follow(job: IngestJob, progress: Progress) -> None:
    while (seen := job_progress(job.pk)) is not None and not seen.is_over:
        progress(f"{seen.inserted:,} of {seen.rows:,} readings, {seen.done} batches done")
        time.sleep(POLL_INTERVAL_S)


def _result(job: IngestJob, answers: Answers, elapsed_s: float) -> dict[str, Any]:
    progress = job_progress(job.pk)
    if progress is None or progress.state != "done":
        errors = IngestBatch.objects.filter(job=job).exclude(error="").values_list("error", flat=True)
        raise RuntimeError(f"the job was not loaded: {progress}: {list(errors)}")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = 'reading'")
        (chunks,) = cursor.fetchone()
    return {
        "question": "does a history of one row per day load, and does another client get an error meanwhile?",
        **circumstances(),
        "rows": progress.rows,
        "inserted": progress.inserted,
        "batches": progress.batches,
        "chunks": chunks,
        "elapsed_s": round(elapsed_s, 1),
        "rows_per_s": round(progress.rows / elapsed_s),
        "client_questions": len(answers.waits_ms),
        "client_errors": len(answers.errors),
        "client_errors_seen": sorted(set(answers.errors)),
        "client_longest_wait_ms": round(max(answers.waits_ms), 1),
        "warnings": job.warnings,
    }


def print_result(result: dict[str, Any], console: Console) -> None:
    """Print the result of `measure`."""
    console.print(
        f"{result['inserted']:,} of {result['rows']:,} rows in {result['chunks']:,} chunks: {result['elapsed_s']:,} s, "
        f"{result['rows_per_s']:,} rows/s"
    )
    console.print(
        f"the client beside it: {result['client_questions']:,} queries, {result['client_errors']:,} errors, longest "
        f"answer {result['client_longest_wait_ms']} ms"
    )
