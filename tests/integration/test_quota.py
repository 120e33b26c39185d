"""The limits of the spool: a token's quota, the disk's reserve, and the cleaning by beat."""

import gzip
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management.base import CommandError
from django.test import Client
from pytest_django.fixtures import Settings

from api.models import ApiToken, TokenJob
from api.problems import Problem
from api.quota import Quota, Replay
from api.tokens import create_token
from api.uploads import _write
from telemetry import rejects, spool
from telemetry.models import IngestBatch, IngestJob, Reading
from tests.integration.conftest import run
from tests.integration.test_api import CSV, upload
from worker.loader import load
from worker.schedule import beat_schedule
from worker.tasks import clean_spool

pytestmark = pytest.mark.django_db(transaction=True)

MORE_THAN_A_DISK_HAS = 2**62


def client_of(name: str) -> Client:
    return Client(headers={"Authorization": f"Bearer {create_token(name)}"})


@pytest.fixture
def client() -> Client:
    return client_of("tests")


def spooled() -> list[str]:
    return [entry.location for entry in spool.entries(spool.FILES)]


def test_a_token_has_no_more_in_the_spool_than_its_quota(client: Client, sent: list[int], settings: Settings) -> None:
    settings.INGEST_TOKEN_SPOOL_BYTES = 2 * len(CSV) - 1
    assert upload(client).status_code == 202
    refused = upload(client)
    assert (refused.status_code, refused["Content-Type"]) == (507, "application/problem+json")
    problem = refused.json()
    assert (problem["used_bytes"], problem["limit_bytes"]) == (len(CSV), 2 * len(CSV) - 1)
    assert (
        f"have {len(CSV)} bytes in the spool; with this upload they would exceed {2 * len(CSV) - 1} bytes"
        in problem["detail"]
    )
    assert "try again when its jobs are done" in problem["detail"]
    assert refused["Retry-After"]
    assert (IngestJob.objects.count(), len(spooled())) == (1, 1)
    assert upload(client_of("somebody else")).status_code == 202, "each token has a quota of its own"
    for batch in IngestBatch.objects.filter(job_id=sent[0]):
        load(batch.pk)
    assert upload(client).status_code == 507, "inputs of jobs that were done a moment ago count"
    settings.INGEST_INPUT_GRACE_S = 0
    clean_spool()
    assert len(spooled()) == 1
    assert upload(client).status_code == 202


def test_rejects_of_a_token_count_for_its_quota(client: Client, sent: list[int], settings: Settings) -> None:
    settings.INGEST_INPUT_GRACE_S = 0
    accepted = client.post(
        "/api/ingest/?time=time&labels=device&values=load", CSV + b"x\n" * 20, content_type="text/csv"
    )
    load(IngestBatch.objects.get(job_id=sent[0]).pk)
    clean_spool()
    assert (accepted.status_code, spooled()) == (202, [])
    used = rejects.used_bytes(str(ApiToken.objects.get().pk))
    assert used == sum(entry.size_bytes for entry in spool.entries(rejects.FOLDER)) > 20 * 50
    settings.INGEST_TOKEN_SPOOL_BYTES = used + len(CSV) - 1
    refused = upload(client)
    assert (refused.status_code, refused.json()["used_bytes"]) == (507, used)
    assert upload(client_of("somebody else")).status_code == 202
    settings.INGEST_TOKEN_SPOOL_BYTES += 1
    assert upload(client).status_code == 202


def test_a_repeated_upload_needs_no_quota(client: Client, sent: list[int], settings: Settings) -> None:
    settings.INGEST_TOKEN_SPOOL_BYTES = 2 * len(CSV) - 1
    first = upload(client, Idempotency_Key="once")
    again = upload(client, Idempotency_Key="once")
    assert (again.status_code, again["Location"]) == (202, first["Location"])
    assert len(spooled()) == 1


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_another_body_with_a_known_key_is_refused_before_it_is_written(
    client: Client, sent: list[int], settings: Settings, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.INGEST_TOKEN_SPOOL_BYTES = len(CSV)
    assert upload(client, Idempotency_Key="once").status_code == 202
    written = []
    whole_complete = Quota.complete

    def note(self: Quota, location: str) -> None:
        written.append(location)
        whole_complete(self, location)

    monkeypatch.setattr(Quota, "complete", note)
    other = CSV + b"2024-05-01T03:00Z,a,4\n" * 1000
    refused = client.post(
        "/api/ingest/?time=time&labels=device&values=load",
        gzip.compress(other) if encoding == "gzip" else other,
        content_type="text/csv",
        headers={"Content-Encoding": encoding, "Idempotency-Key": "once"},
    )
    assert (refused.status_code, written, len(spooled())) == (422, [], 1)
    assert f"different upload of {len(CSV)} bytes (unpacked)" in refused.json()["detail"]


def test_concurrent_repeated_uploads_share_the_additional_bytes(client: Client, settings: Settings) -> None:
    settings.INGEST_TOKEN_SPOOL_BYTES = 100
    owner = str(ApiToken.objects.get().pk)
    with spool.writing(".csv", owner) as recorded:
        recorded.sink.write(b"x" * 100)
    first, second = (Replay(ApiToken.objects.get(), 100) for _ in range(2))
    first.begin(100)
    with spool.writing(".csv", owner) as quick:
        _write(iter([b"x" * 100]), quick, first)
    first.complete(quick.location)
    second.begin(100)
    with pytest.raises(Problem, match="have 200 bytes in the spool"), spool.writing(".csv", owner) as slow:
        _write(iter([b"x" * 10]), slow, second)
    spool.discard(quick.location)
    second = Replay(ApiToken.objects.get(), 100)
    second.begin(100)
    with spool.writing(".csv", owner) as slow:
        _write(iter([b"x" * 100]), slow, second)
    second.complete(slow.location)


def test_an_upload_that_is_larger_than_the_quota_is_too_large(client: Client, settings: Settings) -> None:
    settings.INGEST_TOKEN_SPOOL_BYTES = len(CSV) - 1
    refused = upload(client)
    assert refused.status_code == 413
    detail = refused.json()["detail"]
    assert f"the body has {len(CSV)} bytes; a token may have at most {len(CSV) - 1} bytes in the spool" in detail


def test_the_quota_holds_for_what_is_unpacked(client: Client, sent: list[int], settings: Settings) -> None:
    text = CSV + b"2024-05-01T03:00Z,a,4\n" * 1000
    settings.INGEST_TOKEN_SPOOL_BYTES = len(text) - 1
    packed = gzip.compress(text)
    refused = client.post(
        "/api/ingest/?time=time&labels=device&values=load",
        packed,
        content_type="text/csv",
        headers={"Content-Encoding": "gzip"},
    )
    assert (refused.status_code, spooled()) == (507, [])


def test_of_two_concurrent_uploads_the_one_completed_last_is_refused(client: Client, settings: Settings) -> None:
    settings.INGEST_TOKEN_SPOOL_BYTES = 100
    first, second = (Quota(ApiToken.objects.get()) for _ in range(2))
    first.begin(60)
    second.begin(60)
    with spool.writing(".csv", second.owner) as slow:
        _write(iter([b"x" * 20]), slow, second)
        with spool.writing(".csv", first.owner) as quick:
            _write(iter([b"x" * 60]), quick, first)
        first.complete(quick.location)
        _write(iter([b"x" * 40]), slow, second)
    with pytest.raises(Problem, match="have 60 bytes in the spool; with this upload they would exceed 100 bytes"):
        second.complete(slow.location)


def test_a_job_of_an_upload_has_a_token(client: Client, sent: list[int]) -> None:
    job_id = upload(client).json()["job_id"]
    assert TokenJob.objects.get().job_id == job_id
    assert IngestJob.objects.get(token_job__token__name="tests").pk == job_id
    IngestJob.objects.all().delete()
    assert not TokenJob.objects.exists()


def test_the_migration_finds_the_tokens_of_jobs_that_have_a_key(client: Client, sent: list[int]) -> None:
    keyed = upload(client, Idempotency_Key="old").json()["job_id"]
    upload(client)
    run("migrate", "api", "0001", "--verbosity", "0")
    run("migrate", "api", "--verbosity", "0")
    assert [(one.job_id, one.token.name) for one in TokenJob.objects.all()] == [(keyed, "tests")]


def test_an_upload_that_takes_too_long_is_refused(client: Client, settings: Settings) -> None:
    settings.INGEST_UPLOAD_MAX_S = 0
    refused = upload(client)
    assert (refused.status_code, spooled()) == (400, [])
    assert "the upload took longer than 0 s (INGEST_UPLOAD_MAX_S)" in refused.json()["detail"]


def test_an_upload_without_a_free_slot_is_answered_with_503(client: Client, settings: Settings) -> None:
    settings.INGEST_UPLOADS_AT_ONCE = 0
    refused = upload(client)
    assert (refused.status_code, bool(refused["Retry-After"])) == (503, True)
    assert (
        "this process is already receiving 0 uploads, the limit is 0 (WEB_UPLOAD_THREADS)" in refused.json()["detail"]
    )


def test_an_upload_leaves_the_disk_its_reserve(client: Client, settings: Settings) -> None:
    settings.INGEST_SPOOL_MIN_FREE_BYTES = MORE_THAN_A_DISK_HAS
    refused = upload(client)
    assert (refused.status_code, spooled(), IngestJob.objects.count()) == (507, [], 0)
    assert f"{MORE_THAN_A_DISK_HAS:,} must stay free (INGEST_SPOOL_MIN_FREE_BYTES)" in refused.json()["detail"]


def test_the_reserve_is_checked_while_an_upload_is_written(client: Client, settings: Settings) -> None:
    def pieces() -> Iterator[bytes]:
        yield CSV
        settings.INGEST_SPOOL_MIN_FREE_BYTES = MORE_THAN_A_DISK_HAS
        yield CSV

    quota = Quota(ApiToken.objects.get())
    with pytest.raises(spool.SpoolFullError), spool.writing(".csv", quota.owner) as spooled_file:
        _write(pieces(), spooled_file, quota)
    assert spooled() == []


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_enqueue_ingest_leaves_the_disk_its_reserve(tmp_path: Path, settings: Settings, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(CSV) if name.endswith(".gz") else CSV)
    settings.INGEST_SPOOL_MIN_FREE_BYTES = MORE_THAN_A_DISK_HAS
    with pytest.raises(CommandError, match=r"the spool: its disk has .* must stay free"):
        run("enqueue_ingest", str(path), "--time", "time", "--labels", "device", "--values", "load", "--spool")
    assert (spooled(), IngestJob.objects.count()) == ([], 0)


def test_rejects_may_use_the_reserve(client: Client, sent: list[int], settings: Settings) -> None:
    query = "time=time&labels=device&values=load"
    accepted = client.post(f"/api/ingest/?{query}", CSV + b"soon,a,1\n", content_type="text/csv")
    settings.INGEST_SPOOL_MIN_FREE_BYTES = MORE_THAN_A_DISK_HAS
    load(IngestBatch.objects.get(job_id=sent[0]).pk)
    assert Reading.objects.count() == 3
    assert len(list(rejects.read(accepted.json()["job_id"]))) == 1
    settings.INGEST_INPUT_GRACE_S = 0
    clean_spool()
    assert spooled() == [], "what has been loaded makes room"


def test_beat_has_the_spool_cleaned(client: Client, sent: list[int], settings: Settings) -> None:
    tasks = {entry["task"]: entry["schedule"] for entry in beat_schedule().values()}
    assert tasks["worker.clean_spool"] == settings.INGEST_CLEAN_INTERVAL_S
    assert not any("queue" in entry["options"] for entry in beat_schedule().values()), (
        "no task of beat's waits for batches"
    )
    upload(client)
    with spool.writing(".csv", "1") as old, spool.writing(".csv") as young:
        old.sink.write(CSV)
        young.sink.write(CSV)
    before = time.time() - timedelta(seconds=settings.INGEST_CLEAN_AGE_S + 60).total_seconds()
    for location in spooled():
        if location != young.location:
            os.utime(Path(settings.INGEST_SPOOL) / location.removeprefix(spool.SCHEME), (before, before))
    clean_spool()
    assert old.location not in spooled()
    assert len(spooled()) == 2, "the young one, and the input of the job"
