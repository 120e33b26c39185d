"""The spool as a folder and as an object store: writing, reading and removing files."""

import gzip
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs
from pytest_django.fixtures import Settings

from telemetry import rejects, spool
from telemetry.cancellation import cancel_job
from telemetry.formats import BadInput, Columns
from telemetry.inputs import Inputs, open_input
from telemetry.intake import create_job, retry_job
from telemetry.models import IngestBatch, IngestJob, Reading
from telemetry.retention import removable
from tests.integration.conftest import run
from tests.plugin import free_ports
from worker.loader import load
from worker.tasks import load_batch

pytestmark = pytest.mark.django_db(transaction=True)

COLUMNS = Columns("time", ("device",), ("load",))
TEXT = b"time,device,load\n" + b"".join(b"2024-05-01T00:00:%02dZ,a,%d\n" % (n, n) for n in range(50)) + b"soon,a,1\n"
PACKED = {".gz": gzip.compress(TEXT[:300]) + gzip.compress(TEXT[300:]), ".zst": pa.compress(TEXT, "zstd", asbytes=True)}
NOW = timedelta(0)


@pytest.fixture(scope="module")
def object_store() -> Iterator[str]:
    """Return the URL of a folder in a bucket of an S3 server."""
    (port,) = free_ports(1)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    options = f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
    url = f"s3://key:secret@bucket/poolhouse?{options}"
    base, _ = fs.FileSystem.from_uri(url)
    base.create_dir("bucket")
    yield url
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def spool_url(request: pytest.FixtureRequest, settings: Settings) -> str:
    """Use a spool of the test's own."""
    if request.param == "s3":
        settings.INGEST_SPOOL = request.getfixturevalue("object_store")
    for old in (*spool.entries(spool.FILES), *spool.entries(rejects.FOLDER)):
        spool.discard(old.location)
    return str(settings.INGEST_SPOOL)


def locations() -> set[str]:
    return {entry.location for entry in spool.entries(spool.FILES)}


def job_of(path: Path, batch_rows: int = 20, *, into_spool: bool = False) -> IngestJob:
    with Inputs() as files:
        files.append(open_input(str(path), into_spool=into_spool))
        return create_job(files, COLUMNS, batch_rows=batch_rows)


def _forget_in_a_failover(batch: IngestBatch) -> None:
    """Restore the database to that of a standby that has not received the last transaction, of the first 20 rows."""
    Reading.objects.filter(value__lt=20).delete()
    IngestBatch.objects.filter(pk=batch.pk).update(state=IngestBatch.State.QUEUED, finished_at=None)


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_spooled_inputs_are_loaded_and_removed_after_the_grace_time(
    tmp_path: Path, spool_url: str, ending: str, settings: Settings
) -> None:
    path = tmp_path / f"a.csv{ending}"
    path.write_bytes(PACKED.get(ending, TEXT))
    job = job_of(path, into_spool=True)
    path.unlink()
    (file,) = job.files.all()
    assert (file.name, file.size_bytes, {file.location}) == (str(path), len(TEXT), locations())
    batches = list(job.batches.order_by("pk"))
    for batch in batches:
        assert list(removable(NOW)) == []
        load(batch.pk)
    assert [batch.row_count for batch in batches] == [20, 20, 11]
    run("clean_spool", "--older-than", "0")
    assert locations() == {file.location}, "a failover may have the batches queued again"
    _forget_in_a_failover(batches[0])
    assert Reading.objects.count() == 30
    load(batches[0].pk)
    assert Reading.objects.count() == 50
    settings.INGEST_INPUT_GRACE_S = 0
    run("clean_spool")
    assert locations() == set()
    assert Reading.objects.count() == 50
    (reject,) = rejects.read(job.pk)
    assert (reject["file"], reject["line"], reject["raw"]) == (str(path), 52, "soon,a,1")
    load(batches[0].pk)  # delivered once more, it does not miss its file


def test_a_file_that_is_not_copied_stays_where_it_is(tmp_path: Path, sent: list[int], spool_url: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(TEXT)
    job = job_of(path, 100)
    assert (job.files.get().location, locations()) == (str(path), set())
    load(job.batches.get().pk)
    assert path.exists()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv.gz", PACKED[".gz"][:-4], "a.csv.gz: cannot be unpacked as gzip: Truncated"),
        ("a.csv.gz", TEXT, "a.csv.gz: cannot be unpacked as gzip: zlib inflate failed"),
        ("a.csv.zst", PACKED[".zst"][:-9], "a.csv.zst: cannot be unpacked as zstd: Truncated"),
        ("a.csv.zst", PACKED[".gz"], "a.csv.zst: cannot be unpacked as zstd: ZSTD decompress failed"),
        (
            "a.csv.zst",
            pa.compress(b"no,such,columns\n1,2,3\n", "zstd", asbytes=True),
            "a.csv.zst:1: missing column 'time'",
        ),
    ],
)
@pytest.mark.usefixtures("spool_url")
def test_an_input_that_cannot_be_loaded_leaves_no_job_and_no_file(
    tmp_path: Path, sent: list[int], name: str, content: bytes, problem: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInput, match=problem):
        job_of(path)
    assert (locations(), IngestJob.objects.count()) == (set(), 0)


def test_a_parked_job_can_be_retried_until_its_files_are_removed(
    tmp_path: Path, spool_url: str, settings: Settings
) -> None:
    settings.INGEST_INPUT_GRACE_S = 0
    path = tmp_path / "a.csv"
    path.write_bytes(TEXT)
    job = job_of(path, into_spool=True)
    first, *rest = job.batches.order_by("pk")
    load(first.pk)
    assert cancel_job(job.pk).queued == 2
    assert list(removable(NOW)) == []
    assert [entry.location for entry in removable(NOW, parked_and_cancelled=True)] == [job.files.get().location]
    retry_job(job.pk)
    assert list(removable(NOW, parked_and_cancelled=True)) == []
    load(rest[0].pk)
    cancel_job(job.pk)
    assert "1 files, " in run("clean_spool", "--older-than", "0", "--parked-and-cancelled")
    assert locations() == set()
    retry_job(job.pk)
    load_batch(rest[1].pk)
    rest[1].refresh_from_db()
    assert rest[1].state == "parked"
    assert "no such file" in rest[1].error


def test_clean_spool_removes_files_left_by_dead_processes_but_no_younger_ones(spool_url: str, sent: list[int]) -> None:
    with spool.writing(".csv") as left:
        left.sink.write(TEXT)
    with spool.rewriting(f"{rejects.FOLDER}/4711/1.ndjson") as sink:
        sink.write(b"{}\n")
    assert "0 files, 0 bytes removed" in run("clean_spool")
    assert "2 files, 1,319 bytes would be removed" in run("clean_spool", "--older-than", "0", "--dry-run")
    assert locations() == {left.location}
    out = run("clean_spool", "--older-than", "0")
    assert f"{left.location} 1,316 bytes" in out
    assert "2 files, 1,319 bytes removed" in out
    assert [*spool.entries(spool.FILES), *spool.entries(rejects.FOLDER)] == []


def test_a_block_that_fails_leaves_no_file(spool_url: str) -> None:
    def fail() -> None:
        with spool.writing(".csv") as left:
            left.sink.write(b"half of it")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert locations() == set()


def test_a_file_can_be_named_by_a_url(
    object_store: str, sent: list[int], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.INGEST_SPOOL = object_store
    with spool.rewriting("mine/a.csv") as sink:
        sink.write(TEXT)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    url = object_store.replace("key:secret@", "").replace("/poolhouse", "/poolhouse/mine/a.csv")
    job = create_job(Inputs([open_input(url)]), COLUMNS, batch_rows=100)
    load(job.batches.get().pk)
    assert Reading.objects.count() == 50
    with pytest.raises(BadInput, match=r"s3://…@bucket/.*: credentials are not allowed in a URL"):
        open_input(object_store.replace("/poolhouse", "/poolhouse/mine/a.csv"))
    with pytest.raises(BadInput, match=r"gopher://a/a\.csv: unsupported URL: Unrecognized filesystem type"):
        open_input("gopher://a/a.csv")
    with pytest.raises(BadInput, match=r"no such file"):
        open_input(url.replace("a.csv", "b.csv"))
