"""Input that is damaged: refused with a line when it is enqueued, or parked at the first attempt with the reason."""

import gzip
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from django.core.management import CommandError

from telemetry import rejects
from telemetry.inputs import Inputs, open_input
from telemetry.intake import create_job
from telemetry.models import IngestBatch, Reading
from tests.integration.conftest import run
from tests.unit import damage
from worker.tasks import load_batch

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]


def with_other_name(data: bytes) -> bytes:
    return data.replace(b"load", b"lead")


def overwritten(data: bytes) -> bytes:
    """Overwrite the middle of the data, which comes before what describes it."""
    return data[:300] + bytes(100) + data[400:]


@pytest.mark.parametrize(
    ("write", "change", "problem"),
    [
        (damage.write_parquet, with_other_name, "missing column 'load'"),
        (damage.write_arrow, with_other_name, "missing column 'load'"),
        (damage.write_parquet, damage.with_other_repetition, "cannot read row groups 0 to 1: "),
        (damage.write_parquet, overwritten, "cannot read row groups 0 to 1: "),
        (lambda path: damage.write_arrow(path, "zstd"), overwritten, "cannot read the rows from 1 on: "),
        (damage.write_parquet, lambda data: data[:-200] + bytes(200), "not a valid Parquet file: "),
    ],
)
def test_a_file_that_was_damaged_after_it_was_enqueued_is_parked_at_the_first_attempt(
    tmp_path: Path,
    write: Callable[[Path], Path],
    change: Callable[[bytes], bytes],
    problem: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write(tmp_path / ("a.parquet" if write is damage.write_parquet else "a.arrow"))
    job = create_job(Inputs([open_input(str(path))]), damage.COLUMNS, batch_rows=damage.BATCH_ROWS)
    stat = path.stat()
    path.write_bytes(change(path.read_bytes()))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    with caplog.at_level(logging.DEBUG):
        for batch in job.batches.order_by("pk"):
            load_batch(batch.pk)
    first = job.batches.order_by("pk")[0]
    assert (first.state, first.attempts) == ("parked", 1)
    assert problem in first.error
    assert str(path) in first.error
    assert not [record for record in caplog.records if record.exc_info]


def test_an_error_of_the_disk_is_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = damage.write_parquet(tmp_path / "a.parquet")
    job = create_job(Inputs([open_input(str(path))]), damage.COLUMNS, batch_rows=damage.BATCH_ROWS)
    batch = job.batches.order_by("pk")[0]

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("telemetry.formats.parquet.pq.ParquetFile", fail)
        patched.setattr(load_batch, "retry", lambda **_: InterruptedError())
        with pytest.raises(InterruptedError):
            load_batch(batch.pk)
    batch.refresh_from_db()
    assert (batch.state, batch.attempts) == ("queued", 0)
    assert "input/output error" in batch.error
    IngestBatch.objects.update(due_at=job.created_at)
    load_batch(batch.pk)
    batch.refresh_from_db()
    assert batch.state == "done"


def refusal_of(path: Path) -> str:
    try:
        run("enqueue_ingest", str(path), "--time", "time", "--labels", "device", "--values", "load", "heat")
    except CommandError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_damaged_compressed_file_is_refused_or_its_rows_are_loaded_or_rejected(
    tmp_path: Path, compression: str
) -> None:
    lines = "".join(f"2024-05-01T00:{n:02}:00Z,device-{n % 3},{n * 1.5},{n}\n" for n in range(60))
    text = f"time,device,load,heat\n{lines}".encode()
    packed = gzip.compress(text) if compression == "gzip" else pa.compress(text, "zstd", asbytes=True)
    path = tmp_path / ("a.csv.gz" if compression == "gzip" else "a.csv.zst")
    outcomes = set()
    for n in range(60):
        path.write_bytes(damage.damaged(packed, random.Random(n)))
        if refusal := refusal_of(path):
            outcomes.add("refused")
            assert "\n" not in refusal
            assert str(path) in refusal
            assert not IngestBatch.objects.filter(state="queued").exists()
        for batch in IngestBatch.objects.filter(state="queued"):
            load_batch(batch.pk)
            batch.refresh_from_db()
            assert batch.state in ("done", "parked"), batch.error
            assert batch.attempts == 1
            outcomes.add(batch.state)
            if batch.rejected_count:
                assert list(rejects.read(batch.job_id))
    assert "refused" in outcomes
    assert Reading.objects.exists() == ("done" in outcomes)
