"""Inputs that touch more chunks than one transaction may, on the real server."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from celery.exceptions import Retry
from django.db import OperationalError, connection, connections
from pyarrow import ipc
from pytest_django import Settings

from config.env import Database, read
from sandbox.isolation import connect
from telemetry import rejects
from telemetry.buckets import bucket_means
from telemetry.cancellation import cancel_job
from telemetry.chunks import LockTable, chunk_budget, chunk_edges, chunk_facts, forget_chunk_facts, query_spans
from telemetry.formats import Columns, Parsed, csv
from telemetry.inputs import Inputs, open_input
from telemetry.intake import RejectLimit, create_job, retry_job
from telemetry.ledger import loading_lock_key
from telemetry.models import IngestBatch, IngestJob, Reading
from telemetry.queries import job_document, job_progress, reject_counts
from tests.integration.conftest import await_that, due_again, run
from worker import loader, progress, tasks
from worker.loader import load
from worker.tasks import is_transient, load_batch

pytestmark = pytest.mark.django_db(transaction=True)

BEGIN = datetime(1900, 1, 1, tzinfo=UTC)
COLUMNS = Columns("time", ("station",), ("tmax",))


def test_no_connection_is_checked_out_while_samples_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("time,station,tmax\n2024-05-01T00:00Z,a,1\n")
    held: list[bool] = []
    read_sample = csv.CsvFormat.sample

    def sample(*arguments: Any) -> Iterator[Parsed]:
        held.append(connection.connection is not None)
        return read_sample(*arguments)

    monkeypatch.setattr(csv.CsvFormat, "sample", sample)
    forget_chunk_facts()
    create_job(Inputs([open_input(str(tmp_path / "a.csv"))]), COLUMNS, batch_rows=10)
    assert held == [False]


def days(count: int, *stations: str, first: int = 0) -> list[str]:
    """Return a row per day, station after station, as in archives."""
    times = [f"{BEGIN + timedelta(days=day):%Y-%m-%dT00:00:00Z}" for day in range(first, first + count)]
    return [f"{time},{station},{number}" for station in stations for number, time in enumerate(times)]


@pytest.fixture
def make_batch(tmp_path: Path, sent: list[int]) -> Callable[..., IngestBatch]:
    """Record a job of one CSV file with these lines and one batch."""

    def make(lines: list[str], **how: Any) -> IngestBatch:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
        path.write_text("\n".join(["time,station,tmax", *lines, ""]))
        return create_job(Inputs([open_input(str(path))]), COLUMNS, batch_rows=1_000_000, **how).batches.get()

    return make


MakeBatch = Callable[..., IngestBatch]


def fresh(batch: IngestBatch) -> IngestBatch:
    return IngestBatch.objects.get(pk=batch.pk)


@contextmanager
def session() -> Iterator["psycopg2.extensions.connection"]:
    """Return a session of another client in the tests' database."""
    other = connect(read(Database), name=connection.settings_dict["NAME"])
    other.autocommit = True
    try:
        yield other
    finally:
        other.close()


@contextmanager
def locks_left(count: int) -> Iterator[None]:
    """Take all locks of the server except the given number, for the length of a block."""
    with session() as hog, hog.cursor() as cursor:
        with pytest.raises(psycopg2.errors.OutOfMemory):
            cursor.execute("SELECT pg_advisory_lock(7, number) FROM generate_series(1, 1000000) number")
        cursor.execute("SELECT pg_advisory_unlock(7, number) FROM generate_series(1, %s) number", [count])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock_all()")


@contextmanager
def bystander(seen: list[str]) -> Iterator[None]:
    """Run a client that repeatedly creates and locks a table, for the length of a block; yield its errors."""
    is_over = threading.Event()

    def work() -> None:
        with session() as own, own.cursor() as cursor:
            while not is_over.wait(0.01):
                try:
                    cursor.execute("CREATE TABLE bystander (id int PRIMARY KEY); DROP TABLE bystander")
                    seen.append("ok")
                except psycopg2.Error as error:
                    seen.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_a_long_history_is_loaded_within_its_lock_budget_and_leaves_locks_to_others(make_batch: MakeBatch) -> None:
    batch = make_batch(days(900, "a", "b"))
    seen: list[str] = []
    with locks_left(2_000), bystander(seen):
        load_batch(batch.pk)
        await_that(lambda: len(seen) > 3, timeout_s=60)
    assert set(seen) == {"ok"}
    loaded = fresh(batch)
    assert (loaded.state, loaded.inserted_count, loaded.cell_count) == ("done", 1_800, 1_800)
    assert Reading.objects.count() == 1_800


def test_a_batch_of_as_many_chunks_as_allowed_is_loaded_at_once(
    make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "chunk_budget", lambda: 3)
    batch = make_batch(days(3, "a", "b"))
    load(batch.pk)
    assert (fresh(batch).state, fresh(batch).loaded_until_us) == ("done", None)
    more = make_batch(days(4, "a", "b", first=3))
    load(more.pk)
    assert fresh(more).state == "done"
    assert fresh(more).loaded_until_us is not None


MESSY = [
    *days(40, "a", "b"),
    "never,a,1",
    *days(5, "a"),
    "1900-01-03T00:00:00Z,c,",
    *days(3, "d"),
    "1900-01-02T00:00Z,,1",
]


@pytest.mark.parametrize("on_conflict", ["ignore", "update"])
@pytest.mark.parametrize("chunk_limit", [1, 7, 1000])
@pytest.mark.parametrize("held", [1, 30, 1_000_000])
def test_portions_load_and_count_the_same_as_one_transaction(
    make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch, on_conflict: str, chunk_limit: int, held: int
) -> None:
    monkeypatch.setattr(loader, "HELD_READINGS", held)
    random.Random(5).shuffle(lines := MESSY[:])
    load(make_batch(days(2, "b")).pk)
    batch = make_batch(lines, on_conflict=on_conflict)
    IngestBatch.objects.filter(pk=batch.pk).update(chunk_limit=chunk_limit)
    load(batch.pk)
    done = fresh(batch)
    assert (done.state, done.row_count, done.rejected_count) == ("done", len(lines), 2)
    assert (done.cell_count, done.empty_count) == (len(lines) - 2, 1)
    replaced = 2 if on_conflict == "update" else 0
    assert (done.inserted_count, done.updated_count, done.skipped_count) == (81, replaced, 7 - replaced)
    assert Reading.objects.count() == 83
    assert len(list(rejects.read(batch.job_id))) == 2
    assert sum(count["rows"] for count in reject_counts(batch.job_id)) == 2


def test_update_keeps_the_last_reading_of_the_file_when_loaded_in_portions(
    make_batch: MakeBatch,
) -> None:
    lines = [f"1900-01-0{day}T00:00Z,a,{value}" for value in range(50) for day in (3, 1, 2)]
    batch = make_batch(lines, on_conflict="update")
    IngestBatch.objects.filter(pk=batch.pk).update(chunk_limit=1)
    load(batch.pk)
    assert list(Reading.objects.values_list("value", flat=True)) == [49, 49, 49]
    assert (fresh(batch).inserted_count, fresh(batch).updated_count, fresh(batch).skipped_count) == (3, 0, 147)


def test_a_batch_that_takes_long_is_loaded_by_several_tasks(
    make_batch: MakeBatch, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.INGEST_TIME_LIMIT_S = 0
    again: list[int] = []
    monkeypatch.setattr(tasks, "send_batches", again.extend)
    batch = make_batch(days(4, "a", "b"))
    IngestBatch.objects.filter(pk=batch.pk).update(chunk_limit=1)
    for done in (2, 4, 6):
        load_batch(batch.pk)
        assert (fresh(batch).state, Reading.objects.count()) == ("queued", done)
        assert fresh(batch).attempts == 0, "what achieves something is no failed attempt"
    load_batch(batch.pk)
    assert again == [batch.pk] * 3
    assert (fresh(batch).state, fresh(batch).inserted_count, fresh(batch).skipped_count) == ("done", 8, 0)


def test_an_attempt_after_a_failure_continues_where_the_last_one_stopped(
    make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch(days(5, "a", "b"))
    IngestBatch.objects.filter(pk=batch.pk).update(chunk_limit=2)
    copy = loader.copy_readings

    def fail_at_the_second(*arguments: Any) -> Any:
        if Reading.objects.exists():
            raise OperationalError("the server is away")
        return copy(*arguments)

    monkeypatch.setattr(loader, "copy_readings", fail_at_the_second)
    with pytest.raises(OperationalError):
        load(batch.pk)
    monkeypatch.setattr(loader, "copy_readings", copy)
    assert (fresh(batch).state, fresh(batch).inserted_count) == ("queued", 4)
    load(batch.pk)
    done = fresh(batch)
    assert (done.state, done.inserted_count, done.skipped_count, done.row_count) == ("done", 10, 0, 10)


def test_a_job_with_too_many_rejects_loads_nothing_of_a_long_history(make_batch: MakeBatch) -> None:
    batch = make_batch([*days(5, "a"), "never,a,1"], reject_limit=RejectLimit(0))
    IngestBatch.objects.filter(pk=batch.pk).update(chunk_limit=2)
    load(batch.pk)
    assert (fresh(batch).state, Reading.objects.count()) == ("parked", 0)


@pytest.fixture
def retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise an exception instead of sending a retry."""
    monkeypatch.setattr(load_batch, "retry", lambda **how: Retry(when=how["countdown"]))


def test_a_batch_that_exhausts_the_locks_is_tried_once_more_with_fewer_chunks_and_then_parked(
    make_batch: MakeBatch, retries: None
) -> None:
    batch = make_batch(days(400, "a"))
    with locks_left(130):
        with pytest.raises(Retry):
            load_batch(batch.pk)
        assert (fresh(batch).state, fresh(batch).chunk_limit) == ("queued", chunk_budget() // 8)
        due_again(batch)
        load_batch(batch.pk)
    parked = fresh(batch)
    assert parked.state == "parked"
    assert "out of shared memory: the server's lock table (10,240 locks) was full" in parked.error
    assert "Raise max_locks_per_transaction on the server (now 256)" in parked.error
    assert retry_job(batch.job_id) == 1
    load_batch(batch.pk)
    assert (fresh(batch).state, fresh(batch).inserted_count) == ("done", 400)


def test_a_batch_of_few_chunks_waits_while_another_session_holds_the_locks(
    make_batch: MakeBatch, retries: None
) -> None:
    batch = make_batch(days(30, "a"))
    with locks_left(20):
        for _ in range(3):
            due_again(batch)
            with pytest.raises(Retry):
                load_batch(batch.pk)
    assert (fresh(batch).state, fresh(batch).chunk_limit, fresh(batch).attempts) == ("queued", None, 0)
    due_again(batch)
    load_batch(batch.pk)
    assert (fresh(batch).state, fresh(batch).inserted_count) == ("done", 30)


def test_a_batch_with_more_series_than_the_cache_is_loaded_in_portions(
    make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.series.CACHE_KEYS", 1)
    monkeypatch.setattr("telemetry.formats.borders.PIECE_BYTES", 100)
    batch = make_batch([*days(400, "a"), *days(400, "b"), *days(400, "c")])
    load(batch.pk)
    assert (fresh(batch).state, fresh(batch).inserted_count) == ("done", 1200)


def test_out_of_memory_for_another_reason_is_temporary() -> None:
    with pytest.raises(OperationalError) as short, connection.cursor() as cursor:
        cursor.execute("DO $$ BEGIN RAISE SQLSTATE '53200'; END $$")
    assert is_transient(short.value)
    assert not progress.is_lock_exhaustion(short.value)


def in_a_thread(batch: IngestBatch, outcome: list[object]) -> threading.Thread:
    """Load a batch as a worker does, on a connection of its own."""

    def work() -> None:
        try:
            outcome.append(load_batch(batch.pk))
        except Retry as error:
            outcome.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def is_waiting_for_a_lock(batch: IngestBatch) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT EXISTS (
                SELECT FROM pg_locks loading JOIN pg_locks waiting USING (pid)
                WHERE loading.locktype = 'advisory' AND loading.objid::bigint = %s AND NOT waiting.granted
            )
            """,
            [loading_lock_key(batch.pk) & 0xFFFFFFFF],
        )
        return bool(cursor.fetchone() == (True,))


def test_a_batch_that_is_being_loaded_is_stopped_when_its_job_is_cancelled(
    make_batch: MakeBatch, retries: None, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = make_batch(days(3, "a"))
    outcome: list[object] = []
    with session() as other, other.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE reading IN ACCESS EXCLUSIVE MODE")
        thread = in_a_thread(batch, outcome)
        await_that(lambda: is_waiting_for_a_lock(batch), timeout_s=60)
        cancelled = cancel_job(batch.job_id)
        thread.join(timeout=60)
    assert str(cancelled) == "1 batch cancelled, 1 of them while being loaded"
    assert outcome == [None], "neither retried nor failed"
    stopped = fresh(batch)
    assert (stopped.state, stopped.error, Reading.objects.count()) == ("cancelled", "", 0)
    assert retry_job(batch.job_id) == 1
    load_batch(batch.pk)
    assert (fresh(batch).state, Reading.objects.count()) == ("done", 3)


def test_a_statement_cancelled_for_another_reason_interrupts_the_attempt(make_batch: MakeBatch, retries: None) -> None:
    batch = make_batch(days(3, "a"))
    outcome: list[object] = []
    with session() as other, other.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE reading IN ACCESS EXCLUSIVE MODE")
        thread = in_a_thread(batch, outcome)
        await_that(lambda: is_waiting_for_a_lock(batch), timeout_s=60)
        cursor.execute(
            "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid::bigint = %s",
            [loading_lock_key(batch.pk) & 0xFFFFFFFF],
        )
        thread.join(timeout=60)
    assert isinstance(outcome[0], Retry)
    assert (fresh(batch).state, fresh(batch).attempts) == ("queued", 0), "another batch may have been meant"
    assert "canceling statement" in fresh(batch).error


def test_a_job_cancelled_between_two_portions_continues_there_when_retried(
    make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch(days(4, "a", "b"))
    IngestBatch.objects.filter(pk=batch.pk).update(chunk_limit=1)
    copy = loader.copy_readings

    def copy_and_cancel(*arguments: Any) -> Any:
        IngestJob.objects.filter(pk=batch.job_id).update(cancelled_at=BEGIN)
        return copy(*arguments)

    monkeypatch.setattr(loader, "copy_readings", copy_and_cancel)
    load_batch(batch.pk)
    assert (fresh(batch).state, fresh(batch).inserted_count, Reading.objects.count()) == ("cancelled", 2, 2)
    monkeypatch.setattr(loader, "copy_readings", copy)
    assert retry_job(batch.job_id) == 1
    load_batch(batch.pk)
    done = fresh(batch)
    assert (done.state, done.inserted_count, done.skipped_count, done.cell_count) == ("done", 8, 0, 8)


def write(path: Path, lines: list[str]) -> None:
    """Write rows in the format of the file's ending."""
    rows = [line.split(",") for line in lines]
    if path.suffix == ".csv":
        path.write_text("\n".join(["time,station,tmax", *lines, ""]))
    elif path.suffix == ".ndjson":
        path.write_text("".join(f"{json.dumps({'time': t, 'station': s, 'tmax': float(v)})}\n" for t, s, v in rows))
    else:
        times, stations, values = zip(*rows, strict=True)
        table = pa.table(
            {
                "time": pa.array(map(datetime.fromisoformat, times), pa.timestamp("us", "UTC")),
                "station": pa.array(stations),
                "tmax": pa.array(map(float, values)),
            }
        )
        if path.suffix == ".parquet":
            pq.write_table(table, path)
        else:
            with ipc.new_stream(path, table.schema) as stream:
                stream.write_table(table, max_chunksize=20_000)


@pytest.mark.parametrize("ending", ["csv", "ndjson", "parquet", "arrow"])
@pytest.mark.parametrize("stations", ["a", "abcd"])
def test_enqueueing_a_long_history_prints_a_warning_about_its_chunks(
    tmp_path: Path, sent: list[int], ending: str, stations: str
) -> None:
    write(path := tmp_path / f"history.{ending}", days(54_787, *stations))
    job = create_job(Inputs([open_input(str(path))]), COLUMNS, batch_rows=100_000)
    (warning,) = IngestJob.objects.get(pk=job.pk).warnings
    assert "up to 54,787 chunks of 24 hours" in warning
    assert "READING_CHUNK_INTERVAL_HOURS=720" in warning
    assert (found := job_progress(job.pk)) is not None
    assert job_document(found)["warnings"] == [warning]


@pytest.mark.parametrize("ending", ["csv", "ndjson", "parquet", "arrow"])
def test_a_few_years_cause_no_warning(tmp_path: Path, sent: list[int], ending: str) -> None:
    write(path := tmp_path / f"years.{ending}", days(2_000, *"abcdefghijklmnopqrstuvwxyzäöü"))
    assert create_job(Inputs([open_input(str(path))]), COLUMNS, batch_rows=100_000).warnings == []


def set_chunk_interval(days: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_chunk_time_interval('reading', make_interval(days => %s))", [days])
    forget_chunk_facts()


@pytest.fixture
def longer_chunks() -> Iterator[Callable[[], None]]:
    """Set the interval of new chunks to 30 days."""
    yield lambda: set_chunk_interval(30)
    set_chunk_interval(1)


def test_existing_chunks_are_counted_with_their_own_interval(
    make_batch: MakeBatch,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    longer_chunks: Callable[[], None],
) -> None:
    load(make_batch(days(6, "a")).pk)
    longer_chunks()
    monkeypatch.setattr(loader, "chunk_budget", lambda: 2)
    load((batch := make_batch(days(9, "b"))).pk)
    assert (fresh(batch).state, fresh(batch).inserted_count) == ("done", 9)
    assert f"touches {len(chunk_edges().begins_us)} chunks" in caplog.text


def test_the_loaded_part_of_a_batch_counts_as_progress(make_batch: MakeBatch, settings: Settings) -> None:
    settings.INGEST_TIME_LIMIT_S = 0
    batch = make_batch(days(4, "a", "b"))
    IngestBatch.objects.filter(pk=batch.pk).update(chunk_limit=1)
    load(batch.pk)
    assert (found := job_progress(batch.job_id)) is not None
    assert (found.state, found.rows_done, found.rows) == ("queued", 2, 8)


def test_a_query_over_all_readings_is_divided_into_time_ranges(
    make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(make_batch(days(200, "a", "b")).pk)
    whole = bucket_means("tmax", "station", "1 month")
    monkeypatch.setattr(LockTable, "queryable_chunks", 40)
    assert len(query_spans()) == 10
    with locks_left(100):
        assert bucket_means("tmax", "station", "1 month") == whole
    assert sum(mean.readings for mean in whole) == 400


def test_cancel_ingest_prints_the_numbers_of_batches(make_batch: MakeBatch) -> None:
    batch = make_batch(days(3, "a"))
    assert run("cancel_ingest", str(batch.job_id)) == f"job {batch.job_id}: 1 batch cancelled\n"
    assert run("cancel_ingest", str(batch.job_id)) == f"job {batch.job_id}: 0 batches cancelled\n"


def test_the_edges_of_existing_chunks_are_read_from_the_server(make_batch: MakeBatch) -> None:
    load(make_batch(days(3, "a")).pk)
    facts = chunk_facts()
    assert (facts.interval_us, facts.least_us, facts.locks.size) == (86_400_000_000, 86_400_000_000, 10_240)
    edges = chunk_edges()
    assert edges.begins_us.tolist() == [int((BEGIN + timedelta(days=day)).timestamp()) * 10**6 for day in range(3)]
    assert (edges.ends_us - edges.begins_us).tolist() == [86_400_000_000] * 3
