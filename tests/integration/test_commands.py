"""The commands: what they print, and how they refuse misuse."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.management import CommandError
from rich.console import Console

from telemetry import watch
from telemetry.models import IngestBatch, IngestJob
from telemetry.queue import Waiting
from telemetry.watch import watch_job
from tests.integration.conftest import NOTHING_WAITS, long_ago, run
from worker.loader import load
from worker.tasks import resend_unfinished

pytestmark = pytest.mark.django_db(transaction=True)

COLUMNS = ("--time", "time", "--labels", "device", "--values", "load", "heat")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file"),
        ("", "the file is empty"),
        ("time,device,load\n", "missing column 'heat'"),
        ("time,device,load,heat\nsoon,a,1,2\n", ":2: column 'time': expected a time .*, got 'soon'"),
    ],
)
def test_bad_input_is_misuse_and_records_nothing(tmp_path: Path, content: str | None, problem: str) -> None:
    path = tmp_path / "input.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CommandError, match=problem) as refused:
        run("enqueue_ingest", str(path), *COLUMNS)
    assert refused.value.returncode == 2
    assert IngestJob.objects.count() == 0


def test_one_bad_file_among_several_records_nothing(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("time,device,load,heat\n2024-05-01T00:00Z,a,1,2\n")
    bad.write_text("time,device,load\n")
    with pytest.raises(CommandError, match=r"bad\.csv:1"):
        run("enqueue_ingest", str(good), str(bad), *COLUMNS)
    assert IngestJob.objects.count() == 0


@pytest.mark.parametrize("rows", ["0", "-1", "many", "10000001"])
def test_a_batch_has_at_least_a_row(rows: str) -> None:
    with pytest.raises(CommandError, match="expected a whole number from 1 to 10,000,000"):
        run("enqueue_ingest", "x.csv", *COLUMNS, "--batch-rows", rows)


def test_a_column_may_be_named_only_once(tmp_path: Path) -> None:
    with pytest.raises(
        CommandError, match="expected different columns for the time, labels and values, got time, load, load"
    ) as refused:
        run("enqueue_ingest", str(tmp_path), "--time", "time", "--values", "load", "load")
    assert refused.value.returncode == 2


def test_ingest_status_shows_jobs_and_their_errors(batches_of: Callable[..., list[IngestBatch]]) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2", "soon,a,3,4")
    assert "queued" in run("ingest_status")
    load(batch.pk)
    assert "1 rejected: unreadable time in column 'time'" in run("ingest_status", str(batch.job_id))
    listed = run("ingest_status", str(batch.job_id), "--rejects")
    assert f"{batch.file.name}:3: column 'time': expected a time such as 2013-01-31T06:00:00Z" in listed
    (line,) = run("ingest_status", str(batch.job_id), "--rejects", "--json").splitlines()
    assert (json.loads(line)["line"], json.loads(line)["raw"]) == (3, "soon,a,3,4")
    document = json.loads(run("ingest_status", str(batch.job_id), "--json"))
    assert (document["state"], document["inserted"], document["rejected"]) == ("done", 2, 1)
    assert document["rejects"] == [{"reason": "unreadable time", "column": "time", "rows": 1}]
    assert [job["job_id"] for job in json.loads(run("ingest_status", "--json"))] == [batch.job_id]


def test_wait_prints_batches_rate_and_rejects_without_a_terminal(
    batches_of: Callable[..., list[IngestBatch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2", "soon,a,3,4")
    monkeypatch.setattr(watch, "FIRST_LINE_S", 0.0)
    monkeypatch.setattr(watch, "LINE_INTERVAL_S", 0.0)
    monkeypatch.setattr(watch, "POLL_INTERVAL_S", 0.0)
    polls = iter(range(2))

    def load_at_the_second_poll(_: float) -> None:
        if next(polls) == 1:
            load(batch.pk)

    monkeypatch.setattr("telemetry.watch.time.sleep", load_at_the_second_poll)
    out = io.StringIO()
    assert watch_job(batch.job_id, Console(file=out, width=200))
    first, second, third, summary = out.getvalue().splitlines()
    assert first == second
    assert first.endswith("0 of 2 rows, 0 of 1 batches, time left unknown, 0 rejected, 0 rows/s now, 0 overall")
    assert re.search(r"2 of 2 rows, 1 of 1 batches, 0 s left, 1 rejected, [\d,]+ rows/s now, [\d,]+ overall$", third)
    assert "done in" in summary
    assert "1 of 2 rows rejected" in summary


def test_a_job_that_does_not_exist_is_misuse() -> None:
    with pytest.raises(CommandError, match="job 4711 does not exist") as refused:
        run("ingest_status", "4711")
    assert refused.value.returncode == 2


def test_bucket_means(batches_of: Callable[..., list[IngestBatch]]) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,", "2024-05-20T00:00Z,a,3,", "2024-06-01T00:00Z,b,7,")
    load(batch.pk)
    means = json.loads(run("bucket_means", "load", "--by", "device", "--json"))
    assert [(mean["bucket"][:10], mean["label"], mean["mean"], mean["readings"]) for mean in means] == [
        ("2024-05-01", "a", 2.0, 2),
        ("2024-06-01", "b", 7.0, 1),
    ]
    with pytest.raises(CommandError, match="--width 'long'") as refused:
        run("bucket_means", "load", "--by", "device", "--width", "long")
    assert refused.value.returncode == 2


def test_beat_resends_batches_that_the_broker_may_have_lost(
    batches_of: Callable[..., list[IngestBatch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, forgotten, done = batches_of(*["2024-05-01T00:00Z,a,1,2"] * 3, batch_rows=1)
    long_ago(IngestBatch.objects.filter(pk__in=[forgotten.pk, done.pk]))
    load(done.pk)
    sent: list[int] = []
    monkeypatch.setattr("worker.tasks.send_batches", sent.extend)
    monkeypatch.setattr("worker.tasks.waiting", lambda: Waiting({forgotten.pk}, set(), is_all=True))
    resend_unfinished()
    assert sent == [], "the broker still has it"
    monkeypatch.setattr("worker.tasks.waiting", lambda: NOTHING_WAITS)
    resend_unfinished()
    resend_unfinished()
    assert sent == [forgotten.pk], "once, and not again before it is overdue again"
    assert fresh.pk not in sent


def test_labels_and_metrics_are_text_not_markup(batches_of: Callable[..., list[IngestBatch]]) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,[/x],1,", "2024-05-01T00:00Z,[red]y,2,")
    load(batch.pk)
    out = run("bucket_means", "load", "--by", "device")
    assert "[/x]" in out
    assert "[red]y" in out


def test_a_file_in_another_format_is_loaded_with_options(
    tmp_path: Path, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "german.csv"
    path.write_bytes("time;device;load\n2024-07-15 12:00:00;München;1,5\n".encode("latin-1"))
    columns = ("--time", "time", "--labels", "device", "--values", "load")
    how = ("--delimiter", ";", "--decimal", ",", "--encoding", "latin-1", "--timezone", "Europe/Berlin")
    run("enqueue_ingest", str(path), *columns, *how)
    load(IngestBatch.objects.get(job_id=sent[0]).pk)
    (mean,) = json.loads(run("bucket_means", "load", "--by", "device", "--width", "1 hour", "--json"))
    assert (mean["bucket"], mean["label"], mean["mean"]) == ("2024-07-15 10:00:00+00:00", "München", 1.5)
    escaped = tmp_path / "escaped.csv"
    escaped.write_bytes(b'time,device,load\n2024-05-01T00:00Z,"20\\" line",NAN\n2024-05-01T00:00Z,"b",   -999\n')
    run("enqueue_ingest", str(escaped), *columns, "--escape", "\\", "--keep-nan", "--empty=-999")
    load(IngestBatch.objects.get(job_id=sent[1]).pk)
    (mean,) = json.loads(run("bucket_means", "load", "--by", "device", "--width", "1 day", "--json"))[:1]
    assert (mean["label"], mean["readings"], str(mean["mean"])) == ('20" line', 1, "nan")
    with pytest.raises(CommandError, match="the escape character must differ from the delimiter"):
        run("enqueue_ingest", str(path), *columns, "--escape", ",")
    with pytest.raises(CommandError, match="the delimiter and the decimal mark must differ, got ',' for both"):
        run("enqueue_ingest", str(path), *columns, "--decimal", ",")
