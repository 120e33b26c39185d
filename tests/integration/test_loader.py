"""From a recorded batch to readings, on the real server."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.db import OperationalError, connection, connections, transaction
from django.test import Client
from pytest_django.fixtures import Settings

from api.models import ApiToken, TokenJob
from api.tokens import create_token
from telemetry import rejects, spool
from telemetry.formats import Columns
from telemetry.inputs import Inputs, open_input
from telemetry.intake import create_job
from telemetry.models import IngestBatch, IngestJob, Reading, Series
from telemetry.queries import job_progress, reject_counts
from tests.integration.conftest import COLUMNS, NOTHING_WAITS, claimed_by_another_worker, long_ago, run
from worker import loader
from worker.loader import load
from worker.tasks import load_batch, resend_unfinished

pytestmark = pytest.mark.django_db(transaction=True)

MakeBatches = Callable[..., list[IngestBatch]]


def readings() -> dict[tuple[str, str, str], float]:
    rows = Reading.objects.values_list("series__metric", "series__labels__device", "time", "value")
    return {(metric, device, f"{time:%d %H:%M}"): value for metric, device, time, value in rows}


def test_a_wide_row_becomes_a_reading_for_each_cell_that_is_not_empty(batches_of: MakeBatches) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1.5,20", "2024-05-01T01:00Z,b,,21", "2024-05-02T00:00+01:00,a,2.5,")
    load(batch.pk)
    assert readings() == {
        ("load", "a", "01 00:00"): 1.5,
        ("heat", "a", "01 00:00"): 20,
        ("heat", "b", "01 01:00"): 21,
        ("load", "a", "01 23:00"): 2.5,
    }
    batch.refresh_from_db()
    assert (batch.state, batch.row_count, batch.inserted_count, batch.skipped_count) == ("done", 3, 4, 0)


def test_a_batch_that_is_delivered_twice_is_loaded_once(batches_of: MakeBatches) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    load(batch.pk)
    finished_at = IngestBatch.objects.get(pk=batch.pk).finished_at
    load(batch.pk)
    assert Reading.objects.count() == 2
    assert IngestBatch.objects.get(pk=batch.pk).finished_at == finished_at


def test_existing_readings_are_skipped_and_the_first_value_is_kept(batches_of: MakeBatches) -> None:
    (first,) = batches_of("2024-05-01T00:00Z,a,1,2")
    load(first.pk)
    (second,) = batches_of("2024-05-01T00:00Z,a,9,9", "2024-05-01T01:00Z,a,3,4", "2024-05-01T01:00Z,a,5,6")
    load(second.pk)
    second.refresh_from_db()
    assert (second.inserted_count, second.skipped_count) == (2, 4)
    assert readings()["load", "a", "01 00:00"] == 1


def test_a_bad_row_is_listed_and_the_rest_of_its_batch_is_loaded(batches_of: MakeBatches) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2", "never,a,3,4", "2024-05-01T01:00Z,a,x,6")
    load(batch.pk)
    batch.refresh_from_db()
    assert (batch.state, batch.row_count, batch.inserted_count, batch.rejected_count) == ("done", 3, 2, 2)
    assert list(rejects.read(batch.job_id)) == [
        {
            "file": batch.file.name,
            "line": 3,
            "column": "time",
            "reason": "unreadable time",
            "detail": "expected a time such as 2013-01-31T06:00:00Z (ISO 8601), got 'never'",
            "raw": "never,a,3,4",
        },
        {
            "file": batch.file.name,
            "line": 4,
            "column": "load",
            "reason": "unreadable number",
            "detail": "expected a number, got 'x'",
            "raw": "2024-05-01T01:00Z,a,x,6",
        },
    ]
    assert reject_counts(batch.job_id) == [
        {"rows": 1, "reason": "unreadable number", "column": "load"},
        {"rows": 1, "reason": "unreadable time", "column": "time"},
    ]


def test_a_batch_of_only_bad_rows_lists_a_limited_number_of_them(
    batches_of: MakeBatches, settings: Settings, client: Client
) -> None:
    settings.INGEST_REJECTS_MAX_BYTES = 1000
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2", *["x"] * 400, "2024-05-01T01:00Z,a,3,4", batch_rows=1000)
    load(batch.pk)
    batch.refresh_from_db()
    assert (batch.inserted_count, batch.rejected_count) == (4, 400)
    assert sum(count["rows"] for count in reject_counts(batch.job_id)) == 400
    *listed, others = rejects.read(batch.job_id)
    assert [reject["line"] for reject in listed] == list(range(3, 3 + len(listed)))
    assert {reject["file"] for reject in listed} == {batch.file.name}
    assert 0 < len(listed) < 400
    assert (others["file"], others["unlisted_rows"]) == (batch.file.name, 400 - len(listed))
    assert sum(entry.size_bytes for entry in spool.entries(rejects.FOLDER)) <= 1000
    assert f"{400 - len(listed)} more rejected rows of a batch are counted but not listed" in run(
        "ingest_status", str(batch.job_id), "--rejects"
    )
    token = create_token("tests")
    TokenJob.objects.create(job=batch.job, token=ApiToken.objects.get(name="tests"))
    answer = client.get(f"/api/jobs/{batch.job_id}/rejects/", headers={"Authorization": f"Bearer {token}"})
    assert [json.loads(line) for line in b"".join(answer).splitlines()] == [*listed, others]


@pytest.mark.parametrize("limit_bytes", [0, 1])
def test_the_first_rejected_row_is_always_listed(batches_of: MakeBatches, settings: Settings, limit_bytes: int) -> None:
    settings.INGEST_REJECTS_MAX_BYTES = limit_bytes
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2", "x", "y")
    load(batch.pk)
    first, others = rejects.read(batch.job_id)
    assert (first["raw"], others["unlisted_rows"]) == ("x", 1)


def test_expired_rejects_are_still_counted(batches_of: MakeBatches, settings: Settings) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2", "x", "y")
    load(batch.pk)
    run("clean_spool", "--older-than", "0")
    assert len(list(rejects.read(batch.job_id))) == 2
    settings.INGEST_REJECTS_KEEP_S = 0
    run("clean_spool")
    assert [reject["unlisted_rows"] for reject in rejects.read(batch.job_id)] == [2]
    settings.INGEST_REJECTS_KEEP_S = 3600
    with pytest.raises(FileNotFoundError):
        list(rejects.read(batch.job_id))


def test_a_missing_file_parks_the_batch_with_the_reason(batches_of: MakeBatches) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    path = Path(batch.file.location)
    path.rename(path.with_suffix(".old"))
    load_batch(batch.pk)
    batch.refresh_from_db()
    assert (batch.state, batch.attempts) == ("parked", 1)
    assert "no such file or directory" in batch.error
    progress = job_progress(batch.job_id)
    assert progress is not None
    assert (progress.state, progress.parked) == ("parked", 1)


def test_a_batch_that_another_worker_is_loading_is_left_alone(batches_of: MakeBatches) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    with claimed_by_another_worker(batch):
        load(batch.pk)
        assert Reading.objects.count() == 0
    load(batch.pk)
    assert Reading.objects.count() == 2


def test_nothing_is_loaded_and_the_batch_stays_queued_when_the_server_ends_the_session_in_mid_copy(
    batches_of: MakeBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    whole = loader._copy

    def copy_then_die(table: str, copied: pa.RecordBatch) -> None:
        whole(table, copied)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(loader, "_copy", copy_then_die)
    with pytest.raises(OperationalError):
        load(batch.pk)
    connection.close()
    assert Reading.objects.count() == 0
    batch.refresh_from_db()
    assert batch.state == "queued"
    monkeypatch.setattr(loader, "_copy", whole)
    load(batch.pk)
    assert Reading.objects.count() == 2


def test_batches_of_every_size_load_the_same(batches_of: MakeBatches) -> None:
    lines = [f"2024-05-{day:02d}T{hour:02d}:00Z,d{hour % 3},{day},{hour}" for day in range(1, 4) for hour in range(24)]
    for batch in batches_of(*lines, batch_rows=1000):
        load(batch.pk)
    expected = readings()
    assert len(expected) == 2 * len(lines)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE reading")
    for batch in batches_of(*lines, batch_rows=7):
        load(batch.pk)
    assert readings() == expected


def test_series_are_created_once_and_reused(batches_of: MakeBatches) -> None:
    for batch in batches_of("2024-05-01T00:00Z,a,1,2", "2024-05-01T01:00Z,a,1,2", batch_rows=1):
        load(batch.pk)
    assert Series.objects.count() == 2


def test_a_job_is_recorded_whole_or_not_at_all(batches_of: MakeBatches) -> None:
    with transaction.atomic():
        batches_of("2024-05-01T00:00Z,a,1,2")
        transaction.set_rollback(True)
    assert (IngestJob.objects.count(), IngestBatch.objects.count()) == (0, 0)
    batches = batches_of("2024-05-01T00:00Z,a,1,2")
    assert (IngestJob.objects.count(), IngestBatch.objects.count()) == (1, len(batches))


def test_parquet_is_loaded_like_csv(batches_of: MakeBatches, tmp_path: Path, sent: list[int]) -> None:
    (from_csv,) = batches_of("2024-05-01T00:00Z,a,1.5,20", "2024-05-01T01:00Z,b,,21")
    load(from_csv.pk)
    expected = readings()
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE reading")
    path = tmp_path / "same.parquet"
    pq.write_table(
        pa.table(
            {
                "time": pa.array(
                    [datetime(2024, 5, 1, hour, tzinfo=UTC) for hour in (0, 1)], pa.timestamp("ns", tz="UTC")
                ),
                "device": ["a", "b"],
                "load": [1.5, None],
                "heat": [20, 21],
            }
        ),
        path,
        row_group_size=1,
    )
    job = create_job(Inputs([open_input(str(path))]), COLUMNS, batch_rows=1)
    assert job.batches.count() == 2
    for batch in job.batches.all():
        load(batch.pk)
    assert readings() == expected


def test_many_label_columns_of_many_values_stay_with_their_rows(tmp_path: Path, sent: list[int]) -> None:
    labels = [f"l{number}" for number in range(6)]  # 2,500 values each: together more than 64 bits hold
    lines = [",".join(["time", *labels, "load"])]
    for row in range(2500):
        lines.append(",".join(["2024-05-01T00:00Z", *(f"{name}-{row}" for name in labels), str(row)]))
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(lines))
    job = create_job(Inputs([open_input(str(path))]), Columns("time", tuple(labels), ("load",)), batch_rows=10_000)
    load(job.batches.get().pk)
    for found, value in Reading.objects.values_list("series__labels", "value"):
        assert found == {name: f"{name}-{value:.0f}" for name in labels}
    assert Reading.objects.count() == 2500


def test_a_new_series_in_the_middle_of_a_copy_restarts_the_copy(
    batches_of: MakeBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telemetry.formats.borders.PIECE_BYTES", 1)  # a piece for each line
    (first,) = batches_of("2024-05-01T00:00Z,a,1,2")
    load(first.pk)
    (batch,) = batches_of("2024-05-01T01:00Z,a,1,2", "soon,a,1,2", "2024-05-01T01:00Z,b,3,4", "later,b,3,4")
    load(batch.pk)
    batch.refresh_from_db()
    assert (batch.state, batch.row_count, batch.inserted_count, batch.rejected_count) == ("done", 4, 4, 2)
    assert readings()["heat", "b", "01 01:00"] == 4
    assert [reject["line"] for reject in rejects.read(batch.job_id)] == [3, 5]


def test_a_deleted_series_is_created_again_instead_of_orphaning_its_readings(batches_of: MakeBatches) -> None:
    (first,) = batches_of("2024-05-01T00:00Z,a,1,2")
    load(first.pk)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE reading, series")
    (second,) = batches_of("2024-05-01T01:00Z,a,1,2")
    with pytest.raises(OperationalError, match="a series was deleted"):
        load(second.pk)
    load(second.pk)
    assert readings() == {("load", "a", "01 01:00"): 1, ("heat", "a", "01 01:00"): 2}


def test_a_batch_that_is_being_loaded_does_not_hold_up_the_resending_of_others(batches_of: MakeBatches) -> None:
    loading, forgotten = batches_of("2024-05-01T00:00Z,a,1,2", "2024-05-01T01:00Z,a,1,2", batch_rows=1)
    long_ago(IngestBatch.objects.all())
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT FROM ingest_batch WHERE id = %s FOR UPDATE", [loading.pk])
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '30s'")
        with pytest.MonkeyPatch.context() as patch:
            again: list[int] = []
            patch.setattr("worker.tasks.send_batches", again.extend)
            patch.setattr("worker.tasks.waiting", lambda: NOTHING_WAITS)
            resend_unfinished()
        assert again == [forgotten.pk]
    finally:
        other.close()
        connection.close()
