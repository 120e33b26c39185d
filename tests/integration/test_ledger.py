"""What becomes of a batch when something goes wrong, and what duplicates do, on the real server."""

import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import Retry
from django.core.management import CommandError, call_command
from django.db import IntegrityError, OperationalError, connection, connections, transaction
from django.utils import timezone
from pytest_django import Settings

from config.env import Database, read
from sandbox.isolation import connect
from telemetry import ledger, rejects, spool
from telemetry.cancellation import cancel_job
from telemetry.formats import BadInput, Columns
from telemetry.inputs import Inputs, open_input
from telemetry.intake import RejectLimit, create_job, retry_job
from telemetry.ledger import loading_lock_key
from telemetry.models import IngestBatch, Reading
from telemetry.queries import job_progress, pending_retries, reject_counts
from telemetry.watch import summarise
from tests.integration.conftest import NOTHING_WAITS, await_that, claimed_by_another_worker, due_again, long_ago, run
from worker import tasks
from worker.loader import load
from worker.readings import Readings
from worker.tasks import is_transient, load_batch

pytestmark = pytest.mark.django_db(transaction=True)

MakeBatches = Callable[..., list[IngestBatch]]


class RetryAsked(Retry):
    """Raised instead of sending a retry."""

    def __init__(self, countdown_s: float, unrecorded: dict[str, Any] | None) -> None:
        super().__init__()
        self.countdown_s, self.unrecorded = countdown_s, unrecorded


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Make loading fail, and raise an exception instead of sending a retry."""

    def fail_with(error: Exception) -> None:
        def fail(_: int) -> None:
            raise error

        def retry(**how: Any) -> Retry:
            return RetryAsked(how["countdown"], how["kwargs"].get("unrecorded"))

        monkeypatch.setattr(tasks, "load", fail)
        monkeypatch.setattr(load_batch, "retry", retry)

    return fail_with


def fresh(batch: IngestBatch) -> IngestBatch:
    return IngestBatch.objects.get(pk=batch.pk)


def job_of(tmp_path: Path, on_conflict: str, *lines: str) -> IngestBatch:
    path = tmp_path / f"{on_conflict}-{len(lines)}.csv"
    path.write_text("\n".join(["time,device,load", *lines, ""]))
    job = create_job(
        Inputs([open_input(str(path))]),
        Columns("time", ("device",), ("load",)),
        batch_rows=100,
        on_conflict=on_conflict,
    )
    return job.batches.get()


def values() -> dict[str, float]:
    return {f"{time:%H:%M}": value for time, value in Reading.objects.values_list("time", "value")}


THERE = "2024-05-01T00:00Z,a,1"
AGAIN = ("2024-05-01T00:00Z,a,2", "2024-05-01T00:00Z,a,3", "2024-05-01T01:00Z,a,4", "2024-05-01T01:00Z,a,5")


@pytest.mark.parametrize(
    ("on_conflict", "counts", "expected"),
    [("ignore", (1, 0, 3), {"00:00": 1, "01:00": 4}), ("update", (1, 1, 2), {"00:00": 3, "01:00": 5})],
)
def test_duplicates_of_existing_readings_and_within_a_batch(
    tmp_path: Path, sent: list[int], on_conflict: str, counts: tuple[int, int, int], expected: dict[str, float]
) -> None:
    load(job_of(tmp_path, "ignore", THERE).pk)
    batch = job_of(tmp_path, on_conflict, *AGAIN)
    load(batch.pk)
    batch = fresh(batch)
    assert (batch.inserted_count, batch.updated_count, batch.skipped_count) == counts
    assert values() == expected


def test_a_job_that_refuses_duplicates_is_parked_and_loads_nothing(tmp_path: Path, sent: list[int]) -> None:
    load(job_of(tmp_path, "ignore", THERE).pk)
    batch = job_of(tmp_path, "error", "2024-05-01T05:00Z,a,9", *AGAIN[:1])
    load_batch(batch.pk)
    assert fresh(batch).state == "parked"
    assert "2024-05-01 00:00:00+00) already exists" in fresh(batch).error
    assert values() == {"00:00": 1}


def test_every_cell_is_accounted_for(batches_of: MakeBatches) -> None:
    (batch,) = batches_of(
        "2024-05-01T00:00Z,a,1,",
        "2024-05-01T00:00Z,a,1,2",
        "never,a,1,2",
        "2024-05-01T01:00Z,a,,",
        "2024-05-01T02:00Z,a,x,1",
    )
    load(batch.pk)
    batch = fresh(batch)
    assert (batch.row_count, batch.rejected_count, batch.cell_count, batch.empty_count) == (5, 2, 6, 3)
    assert (batch.inserted_count, batch.skipped_count) == (2, 1)


NINE_DIGITS = (
    "2024-05-01T00:00:00.123456789Z,a,1",
    "2024-05-01T00:00:00.123456999Z,a,2",
    "2024-05-01T00:00:00.123456789Z,a,3",
    "2024-05-01T00:00:00.123457Z,a,4",
    "2024-05-01T00:00:00.123456999Z,b,5",
)


@pytest.mark.parametrize("bad", [(), ("never,a,1",)], ids=["at once", "one by one"])
@pytest.mark.parametrize(("on_conflict", "kept"), [("ignore", 1), ("update", 3)])
def test_times_that_are_equal_only_after_rounding_are_not_duplicates(
    tmp_path: Path, sent: list[int], on_conflict: str, kept: float, bad: tuple[str, ...]
) -> None:
    batch = job_of(tmp_path, on_conflict, *NINE_DIGITS, *bad)
    load(batch.pk)
    batch = fresh(batch)
    assert (batch.inserted_count, batch.skipped_count, batch.rounded_count, batch.empty_count) == (3, 1, 1, 0)
    found = Reading.objects.filter(series__labels__device="a").order_by("time").values_list("value", flat=True)
    assert list(found) == [kept, 4]
    progress = job_progress(batch.job_id)
    assert progress is not None
    assert "1 reading dropped for having the same time as another after rounding to microseconds" in summarise(progress)


@pytest.mark.parametrize("first", ["789", "000"], ids=["fine", "whole"])
@pytest.mark.parametrize("wanted", [("ignore", 1), ("update", 4), ("error", 1)], ids=lambda wanted: wanted[0])
def test_rounding_does_not_depend_on_the_borders_of_pieces(
    tmp_path: Path, sent: list[int], monkeypatch: pytest.MonkeyPatch, wanted: tuple[str, float], first: str
) -> None:
    on_conflict, kept = wanted
    monkeypatch.setattr("telemetry.formats.borders.PIECE_BYTES", 40)
    digits = (first, "999", "888", first) if on_conflict != "error" else (first, "999", "888")
    batch = job_of(
        tmp_path, on_conflict, *(f"2024-05-01T00:00:00.123456{text}Z,a,{n}" for n, text in enumerate(digits, start=1))
    )
    load_batch(batch.pk)
    batch = fresh(batch)
    assert (batch.state, batch.inserted_count, batch.rounded_count) == ("done", 1, 2)
    assert batch.skipped_count == len(digits) - 3
    assert Reading.objects.get().value == kept


def test_a_job_that_refuses_duplicates_accepts_times_that_are_equal_only_after_rounding(
    tmp_path: Path, sent: list[int]
) -> None:
    batch = job_of(tmp_path, "error", *NINE_DIGITS[:2])
    load_batch(batch.pk)
    assert (fresh(batch).state, fresh(batch).inserted_count, fresh(batch).rounded_count) == ("done", 1, 1)


def test_rejects_are_written_while_parsing_and_those_of_the_last_pass_count(
    batches_of: MakeBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telemetry.formats.borders.PIECE_BYTES", 1)  # a piece for each line
    (first,) = batches_of("2024-05-01T03:00Z,a,1,2")
    load(first.pk)
    # A series that is not known, and then a duplicate, each have the batch read once more.
    (batch,) = batches_of("never,a,1,2", "2024-05-01T00:00Z,b,1,2", "soon,a,1,2", "2024-05-01T03:00Z,a,1,2", "x,a,1,2")
    load(batch.pk)
    assert (fresh(batch).rejected_count, fresh(batch).skipped_count) == (3, 2)
    assert [reject["line"] for reject in rejects.read(batch.job_id)] == [2, 4, 6]
    assert reject_counts(batch.job_id) == [{"rows": 3, "reason": "unreadable time", "column": "time"}]


def test_memory_has_only_the_rejects_of_one_piece(batches_of: MakeBatches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telemetry.formats.rows.ROWS_AT_ONCE", 500)
    monkeypatch.setattr("telemetry.formats.borders.PIECE_BYTES", 8 << 10)
    monkeypatch.setattr("telemetry.formats.borders.READ_BYTES", 16 << 10)

    def peak_bytes(rows: int) -> int:
        (batch,) = batches_of("2024-05-01T00:00Z,a,1,2", *["rubbish,a,1,2"] * rows, batch_rows=1_000_000)
        readings = Readings(batch)
        readings.learn_series()
        tracemalloc.start()
        try:
            assert sum(piece.num_rows for piece in readings) == 2
            assert readings.rejected.rows == rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak_bytes(20_000) < 1.5 * peak_bytes(2_000)


def test_rejects_of_a_batch_that_is_not_loaded_do_not_count(
    batches_of: MakeBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    (batch,) = batches_of("never,a,1,2", "2024-05-01T00:00Z,b,1,2")

    def fail(*_: object, **__: object) -> None:
        raise OperationalError("the server is gone")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "finish", fail)
        with pytest.raises(OperationalError):
            load(batch.pk)
    assert list(rejects.read(batch.job_id)) == []
    load(batch.pk)
    assert [reject["line"] for reject in rejects.read(batch.job_id)] == [2]


def test_an_error_of_writing_to_the_spool_is_the_error_that_is_raised(
    batches_of: MakeBatches, settings: Settings, tmp_path: Path
) -> None:
    (batch,) = batches_of("never,a,1,2", "2024-05-01T00:00Z,b,1,2")
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "rejects").write_text("a file where the folder belongs")
    settings.INGEST_SPOOL = str(occupied)
    spool.prepare()
    with pytest.raises(OSError, match="rejects"):
        load(batch.pk)
    assert (fresh(batch).state, Reading.objects.count()) == ("queued", 0)


def test_the_database_refuses_counts_that_do_not_add_up(batches_of: MakeBatches) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    with pytest.raises(IntegrityError, match="ingest_batch_adds_up"):
        IngestBatch.objects.filter(pk=batch.pk).update(cell_count=3, inserted_count=2)


def deliver_due(batch: IngestBatch, **kwargs: Any) -> RetryAsked:
    """Make a batch due and deliver it; return the retry that it requests."""
    due_again(batch)
    with pytest.raises(RetryAsked) as asked:
        load_batch(batch.pk, **kwargs)
    return asked.value


AWAY = OperationalError("server closed the connection unexpectedly")


def test_an_interruption_is_tried_again_and_not_counted(
    batches_of: MakeBatches, failing: Callable[[Exception], None]
) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    failing(AWAY)
    for _ in range(20):
        deliver_due(batch)
    assert (fresh(batch).state, fresh(batch).attempts) == ("queued", 0)
    assert fresh(batch).error == "OperationalError: server closed the connection unexpectedly"


def test_the_ledger_records_the_next_attempt_and_the_begin_of_interruptions(
    batches_of: MakeBatches, failing: Callable[[Exception], None]
) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    failing(AWAY)
    begun_at = timezone.now()
    asked = deliver_due(batch)
    first = fresh(batch)
    assert first.failing_since is not None
    assert begun_at <= first.failing_since <= timezone.now()
    assert first.due_at >= begun_at + timedelta(seconds=asked.countdown_s)
    deliver_due(batch)
    assert fresh(batch).failing_since == first.failing_since, "since the first of them"
    (retry,) = pending_retries(batch.job_id)
    assert (retry["batches"], retry["failing_since"]) == (1, first.failing_since)
    assert retry["next_attempt_at"] == fresh(batch).due_at
    out = run("ingest_status", str(batch.job_id))
    assert "1 batch waits for the next attempt at" in out
    assert "0 of 5 attempts failed): OperationalError: server closed the connection" in " ".join(out.split())


def test_a_second_message_for_a_batch_that_is_not_due_is_dropped_and_not_counted(
    batches_of: MakeBatches, failing: Callable[[Exception], None]
) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    failing(ValueError("it does not fit"))
    deliver_due(batch)
    for _ in range(20):
        load_batch(batch.pk)
    assert (fresh(batch).state, fresh(batch).attempts) == ("queued", 1)


def test_a_batch_is_parked_with_the_reason_after_too_long_interruptions(
    batches_of: MakeBatches, failing: Callable[[Exception], None], settings: Settings
) -> None:
    settings.INGEST_RETRY_MAX_S = 3600
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    failing(AWAY)
    deliver_due(batch)
    IngestBatch.objects.update(failing_since=timezone.now() - timedelta(seconds=3599))
    deliver_due(batch)
    IngestBatch.objects.update(failing_since=timezone.now() - timedelta(seconds=3600))
    due_again(batch)
    load_batch(batch.pk)
    assert fresh(batch).state == "parked"
    assert "were interrupted, longer than 3600 s (INGEST_RETRY_MAX_S)" in fresh(batch).error
    assert fresh(batch).error.endswith("the last error: OperationalError: server closed the connection unexpectedly")


def test_a_disk_that_is_full_for_minutes_parks_nothing_however_many_messages_there_are(
    batches_of: MakeBatches, failing: Callable[[Exception], None], settings: Settings
) -> None:
    settings.INGEST_RESEND_AFTER_S = 0
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    with pytest.raises(OperationalError) as disk_full:
        sql("DO $$ BEGIN RAISE SQLSTATE '53100' USING MESSAGE = 'could not extend: No space left on device'; END $$")
    failing(disk_full.value)
    for _ in range(settings.INGEST_MAX_ATTEMPTS * 3):
        deliver_due(batch)
        for _ in ledger.lost_batches(NOTHING_WAITS):
            load_batch(batch.pk)
    assert (fresh(batch).state, fresh(batch).attempts) == ("queued", 0)
    assert "No space left on device" in fresh(batch).error


def test_an_interruption_that_the_ledger_could_not_record_is_recorded_by_the_next_message(
    batches_of: MakeBatches, failing: Callable[[Exception], None]
) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    failing(AWAY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "connect", unreachable)
        connection.close()
        with pytest.raises(RetryAsked) as asked:
            load_batch(batch.pk)
    assert asked.value.unrecorded is not None
    assert asked.value.unrecorded["reason"].startswith("OperationalError: the server is away")
    assert (fresh(batch).attempts, fresh(batch).error) == (0, "")
    assert ledger.begin(batch.pk) == 1, "another message begins an attempt, and the server goes away"
    counted = {**asked.value.unrecorded, "is_counted": True}
    again = deliver_due(batch, unrecorded=counted)
    assert again.unrecorded is None
    assert fresh(batch).attempts == 0
    assert fresh(batch).failing_since == datetime.fromtimestamp(counted["failed_at_s"], UTC)


def unreachable() -> None:
    raise OperationalError("the server is away")


def test_parking_is_retried_if_the_server_becomes_unavailable_before_it(
    batches_of: MakeBatches, failing: Callable[[Exception], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    failing(BadInput("a.csv", "it is damaged"))
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "park", lambda *_: unreachable())
        deliver_due(batch)
    assert (fresh(batch).state, fresh(batch).attempts) == ("queued", 0)
    due_again(batch)
    load_batch(batch.pk)
    assert (fresh(batch).state, fresh(batch).error) == ("parked", "a.csv: it is damaged")


def test_a_failure_after_interruptions_counts_and_ends_their_series(
    batches_of: MakeBatches, failing: Callable[[Exception], None]
) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    failing(AWAY)
    deliver_due(batch)
    failing(ValueError("it does not fit"))
    deliver_due(batch)
    assert (fresh(batch).attempts, fresh(batch).failing_since) == (1, None)


def test_a_batch_that_waits_for_its_next_attempt_is_not_overdue(
    batches_of: MakeBatches, failing: Callable[[Exception], None], settings: Settings
) -> None:
    settings.INGEST_RESEND_AFTER_S = 0
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    IngestBatch.objects.update(sent_at=timezone.now())
    assert ledger.lost_batches(NOTHING_WAITS) == [batch.pk]
    failing(ValueError("it does not fit"))
    with pytest.raises(Retry):
        load_batch(batch.pk)
    assert ledger.lost_batches(NOTHING_WAITS) == []


def test_a_batch_that_fails_repeatedly_is_parked_with_its_error(
    batches_of: MakeBatches, failing: Callable[[Exception], None], settings: Settings
) -> None:
    settings.INGEST_MAX_ATTEMPTS = 3
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    failing(ValueError("it does not fit"))
    for attempt in (1, 2):
        deliver_due(batch)
        assert (fresh(batch).state, fresh(batch).attempts) == ("queued", attempt)
        assert fresh(batch).error == "ValueError: it does not fit"
    due_again(batch)
    load_batch(batch.pk)
    assert fresh(batch).state == "parked"
    assert fresh(batch).error == (
        "3 attempts failed, the limit is 3 (INGEST_MAX_ATTEMPTS); the last error: ValueError: it does not fit"
    )


def test_a_batch_that_kills_its_worker_repeatedly_is_parked(batches_of: MakeBatches, settings: Settings) -> None:
    settings.INGEST_MAX_ATTEMPTS = 2
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    assert [ledger.begin(batch.pk), ledger.begin(batch.pk)] == [1, 2]  # and each time its process ended
    load_batch(batch.pk)
    assert fresh(batch).state == "parked"
    reason = "2 attempts failed (INGEST_MAX_ATTEMPTS); the process of the last one was killed, for example for "
    assert fresh(batch).error == f"{reason}lack of memory"
    assert Reading.objects.count() == 0


def test_a_recorded_error_is_kept_when_the_process_of_the_last_attempt_is_killed(
    batches_of: MakeBatches, failing: Callable[[Exception], None], settings: Settings
) -> None:
    settings.INGEST_MAX_ATTEMPTS = 2
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    failing(ValueError("it does not fit"))
    deliver_due(batch)
    due_again(batch)
    assert ledger.begin(batch.pk) == 2  # and its process ended
    load_batch(batch.pk)
    assert fresh(batch).error.endswith("lack of memory; the error of an earlier attempt: ValueError: it does not fit")


def test_a_wrong_clock_of_the_web_delays_no_batch(batches_of: MakeBatches, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = timezone.now() + timedelta(minutes=5)
    with monkeypatch.context() as patch:
        patch.setattr(timezone, "now", lambda: ahead)
        (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    load_batch(batch.pk)
    assert fresh(batch).state == "done"


def test_time_without_attempts_does_not_count_as_interrupted(
    batches_of: MakeBatches, failing: Callable[[Exception], None], settings: Settings
) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    failing(AWAY)
    deliver_due(batch)
    days_ago = timezone.now() - timedelta(days=3)
    IngestBatch.objects.update(failing_since=days_ago, due_at=days_ago)
    with pytest.raises(RetryAsked):
        load_batch(batch.pk)
    assert fresh(batch).state == "queued", "no worker was there for three days"
    since = fresh(batch).failing_since
    assert since is not None
    assert since > days_ago


def test_a_message_with_an_unrecorded_interruption_does_not_change_a_batch_that_is_being_loaded(
    batches_of: MakeBatches, failing: Callable[[Exception], None]
) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    failing(AWAY)
    unrecorded = {"reason": "the server was away", "failed_at_s": 1.0, "is_counted": False}
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [loading_lock_key(batch.pk)])
        assert deliver_due(batch, unrecorded=unrecorded).unrecorded == unrecorded, "it comes again"
    finally:
        other.close()
    assert (fresh(batch).error, fresh(batch).failing_since) == ("", None)


def test_a_parked_batch_is_loaded_when_its_job_is_retried(batches_of: MakeBatches, sent: list[int]) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    moved = Path(batch.file.location).rename(Path(batch.file.location).with_suffix(".moved"))
    load_batch(batch.pk)
    assert fresh(batch).state == "parked"
    moved.rename(batch.file.location)
    assert retry_job(batch.job_id) == 1
    assert ledger.next_unsent(batch.job_id, 10) == ([batch.pk], False)
    assert (fresh(batch).state, fresh(batch).attempts, fresh(batch).error) == ("queued", 0, "")
    load_batch(batch.pk)
    assert fresh(batch).state == "done"
    assert retry_job(batch.job_id) == 0, "what is done is not done again"


def test_a_cancelled_job_loads_nothing_more_and_can_be_retried(batches_of: MakeBatches, sent: list[int]) -> None:
    done, queued = batches_of("2024-05-01T00:00Z,a,1,2", "2024-05-01T01:00Z,a,1,2", batch_rows=1)
    load_batch(done.pk)
    assert cancel_job(done.job_id).queued == 1
    load_batch(queued.pk)
    assert Reading.objects.count() == 2
    progress = job_progress(done.job_id)
    assert progress is not None
    assert (progress.state, progress.done, progress.cancelled) == ("cancelled", 1, 1)
    assert retry_job(done.job_id) == 1
    load_batch(queued.pk)
    assert Reading.objects.count() == 4


def test_the_other_batches_are_cancelled_while_one_is_being_loaded(batches_of: MakeBatches) -> None:
    loading, queued = batches_of("2024-05-01T00:00Z,a,1,2", "2024-05-01T01:00Z,a,1,2", batch_rows=1)
    with claimed_by_another_worker(loading), connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = '30s'")
        cancelled = cancel_job(loading.job_id, timeout_s=0)
    connection.close()
    assert (cancelled.queued, cancelled.unstopped) == (1, 1)
    assert (fresh(loading).state, fresh(queued).state) == ("queued", "cancelled")


def test_a_running_job_has_no_end_time(batches_of: MakeBatches) -> None:
    first, second = batches_of("2024-05-01T00:00Z,a,1,2", "2024-05-01T01:00Z,a,1,2", batch_rows=1)
    load_batch(first.pk)
    running = job_progress(first.job_id)
    assert running is not None
    assert (running.state, running.finished_at) == ("running", None)
    load_batch(second.pk)
    over = job_progress(first.job_id)
    assert over is not None
    assert over.finished_at is not None


@pytest.mark.parametrize("command", ["retry_ingest", "cancel_ingest"])
def test_a_job_that_does_not_exist_is_misuse(command: str) -> None:
    with pytest.raises(CommandError, match="job 4711 does not exist") as refused:
        call_command(command, "4711")
    assert refused.value.returncode == 2


def test_two_concurrent_deliveries_load_a_batch_once(batches_of: MakeBatches) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [loading_lock_key(batch.pk)])
        load_batch(batch.pk)
        assert (fresh(batch).state, fresh(batch).attempts) == ("queued", 0), "the other delivery has it"
        long_ago(IngestBatch.objects.all())
        assert ledger.lost_batches(NOTHING_WAITS) == [], "what is being loaded is not lost"
    finally:
        other.close()
    # The server gives the lock back a moment after the session has ended.
    assert await_that(lambda: ledger.lost_batches(NOTHING_WAITS)) == [batch.pk]
    load_batch(batch.pk)
    assert fresh(batch).state == "done"


def test_a_batch_with_the_same_id_in_another_database_is_not_mistaken_for_this_one(batches_of: MakeBatches) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    long_ago(IngestBatch.objects.all())
    elsewhere = connect(read(Database))  # the server's own database; the test runs in another
    try:
        with elsewhere.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [loading_lock_key(batch.pk)])
        assert ledger.lost_batches(NOTHING_WAITS) == [batch.pk]
    finally:
        elsewhere.close()


def sql(*statements: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def test_program_limits_are_failures_but_deadlocks_and_cancelled_statements_are_temporary() -> None:
    with pytest.raises(OperationalError) as too_complex:
        sql("DO $$ BEGIN RAISE SQLSTATE '54001'; END $$")
    assert not is_transient(too_complex.value)
    with pytest.raises(OperationalError) as deadlock:
        sql("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$")
    assert is_transient(deadlock.value)
    with pytest.raises(OperationalError) as cancelled:
        sql("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(1)")
    assert is_transient(cancelled.value), "it may have been meant for the batch that this session loaded before"
    assert is_transient(OperationalError("server closed the connection unexpectedly"))
    assert not is_transient(BadInput(Path("x"), "gone"))


BAD = ("soon,a,1,2", "later,a,1,2")
FINE = tuple(f"2024-05-01T0{hour}:00Z,a,1,2" for hour in range(6))


@pytest.mark.parametrize(("text", "allowed"), [("0", 0), ("3", 3), ("25%", 2), ("12.5%", 1), ("100%", 8)])
def test_a_limit_of_rejects_is_a_number_of_rows_or_a_share(text: str, allowed: int) -> None:
    assert RejectLimit.of(text).rows(8) == allowed


@pytest.mark.parametrize("text", ["", "-1", "many", "1.5", "101%", "%", "1e3"])
def test_an_invalid_limit_of_rejects_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number of rows"):
        RejectLimit.of(text)


def limited_job(tmp_path: Path, limit: str) -> list[IngestBatch]:
    """Four batches of two rows each; the first and the third have one bad row each."""
    path = tmp_path / "limited.csv"
    path.write_text("\n".join(["time,device,load,heat", FINE[0], BAD[0], *FINE[1:3], BAD[1], *FINE[3:], ""]))
    columns = Columns("time", ("device",), ("load", "heat"))
    job = create_job(Inputs([open_input(str(path))]), columns, batch_rows=2, reject_limit=RejectLimit.of(limit))
    return list(job.batches.order_by("pk"))


def test_a_job_with_too_many_rejects_is_parked_with_the_reason(tmp_path: Path, sent: list[int]) -> None:
    batches = limited_job(tmp_path, "1")
    for batch in batches:
        load_batch(batch.pk)
    assert [fresh(batch).state for batch in batches] == ["done", "done", "parked", "parked"]
    assert "rejected rows of the job: 2, the limit is 1; the first of this batch:" in fresh(batches[2]).error
    assert "limited.csv:6: column 'time': expected a time such as" in fresh(batches[3]).error
    assert [reject["line"] for reject in rejects.read(batches[0].job_id)] == [3, 6]
    assert Reading.objects.count() == 6


def test_a_parked_job_continues_with_a_higher_limit(tmp_path: Path, sent: list[int]) -> None:
    batches = limited_job(tmp_path, "0%")
    for batch in batches:
        load_batch(batch.pk)
    assert [fresh(batch).state for batch in batches] == ["parked"] * 4
    assert retry_job(batches[0].job_id) == 4
    load_batch(batches[0].pk)
    assert fresh(batches[0]).state == "parked", "the limit is the same"
    assert retry_job(batches[0].job_id, RejectLimit.of("25%")) == 4
    for batch in batches:
        load_batch(batch.pk)
    assert [fresh(batch).state for batch in batches] == ["done"] * 4
    assert [reject["line"] for reject in rejects.read(batches[0].job_id)] == [3, 6]
    assert reject_counts(batches[0].job_id) == [{"rows": 2, "reason": "unreadable time", "column": "time"}]
    assert Reading.objects.count() == 12
