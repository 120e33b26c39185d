"""The HTTP API with the ledger and the queue."""

from errno import EIO

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError
from pytest_django.fixtures import Settings

from api.models import ApiToken, KeyedUpload
from api.tokens import create_token, revoke_token
from telemetry import rejects, spool
from telemetry.models import IngestBatch, IngestFile, IngestJob, Reading
from worker.loader import load
from worker.tasks import load_batch

pytestmark = pytest.mark.django_db(transaction=True)

ADDRESS = "/api/ingest/?time=time&labels=device&values=load&batch_rows=1"
CSV = b"time,device,load\n2024-05-01T00:00Z,a,1\n2024-05-01T01:00Z,a,2\n2024-05-01T02:00Z,a,3\n"


@pytest.fixture
def token() -> str:
    return create_token("tests")


@pytest.fixture
def client(token: str) -> Client:
    return Client(headers={"Authorization": f"Bearer {token}"})


def upload(client: Client, **headers: str):  # type: ignore[no-untyped-def]
    return client.post(
        ADDRESS,
        CSV,
        content_type="text/csv",
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def test_uploads_are_refused_while_too_many_batches_wait(client: Client, sent: list[int], settings: Settings) -> None:
    settings.INGEST_MAX_UNFINISHED_BATCHES = 3
    assert upload(client, Idempotency_Key="first").status_code == 202
    refused = upload(client)
    assert (refused.status_code, refused["Content-Type"]) == (429, "application/problem+json")
    assert refused.json()["detail"] == (
        "3 batches are waiting to be loaded, the limit is 3 (INGEST_MAX_UNFINISHED_BATCHES); try again in 600 s"
    )
    assert refused["Retry-After"] == "600", "nothing has been finished lately"
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE ingest_batch SET state = 'done', finished_at = now() WHERE id = (SELECT min(id) FROM ingest_batch)"
        )
    settings.INGEST_MAX_UNFINISHED_BATCHES = 2
    assert upload(client)["Retry-After"] == "60", "one a minute, and one too many"
    assert upload(client, Idempotency_Key="first").status_code == 202, "it has been taken in before"
    settings.INGEST_MAX_UNFINISHED_BATCHES = 4
    assert upload(client).status_code == 202


def test_an_upload_is_accepted_while_the_broker_is_unavailable(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise BrokerError("refused")

    monkeypatch.setattr("telemetry.intake.send_job", refuse)
    accepted = upload(client, Idempotency_Key="once")
    assert accepted.status_code == 202
    assert IngestBatch.objects.filter(job_id=accepted.json()["job_id"], state="queued").count() == 3
    assert KeyedUpload.objects.get().job_id == accepted.json()["job_id"]
    assert len(list(spool.entries(spool.FILES))) == 1


def test_only_the_hash_of_a_token_is_stored(token: str) -> None:
    assert len(token) > 40
    kept = ApiToken.objects.get()
    assert len(bytes(kept.digest)) == 32
    assert token.encode() not in bytes(kept.digest)


def test_deleting_a_job_deletes_its_idempotency_key(client: Client, sent: list[int]) -> None:
    first = upload(client, Idempotency_Key="mine").json()["job_id"]
    IngestJob.objects.filter(pk=first).delete()
    assert upload(client, Idempotency_Key="mine").json()["job_id"] != first


def other_client() -> Client:
    return Client(headers={"Authorization": f"Bearer {create_token('somebody else')}"})


def listed(client: Client) -> list[int]:
    return [job["job_id"] for job in client.get("/api/jobs/").json()["jobs"]]


def test_a_job_belongs_to_the_token_that_made_it(client: Client, sent: list[int]) -> None:
    other = other_client()
    mine, theirs = upload(client).json(), upload(other).json()
    assert (listed(client), listed(other)) == ([mine["job_id"]], [theirs["job_id"]])
    for address in (mine["url"], mine["rejects_url"]):
        assert client.get(address).status_code == 200
        refused, missing = other.get(address), other.get(address.replace(str(mine["job_id"]), "4711"))
        assert (refused.status_code, missing.status_code) == (404, 404)
        same = refused.json()["detail"].replace(str(mine["job_id"]), "4711")
        assert same == missing.json()["detail"], "the answer must not tell that there is such a job"


def test_a_page_of_jobs_lists_only_jobs_of_the_token(client: Client, sent: list[int]) -> None:
    other = other_client()
    ids = [upload(one).json()["job_id"] for one in (client, other, client, other, client)]
    first = client.get("/api/jobs/?limit=2").json()
    assert [job["job_id"] for job in first["jobs"]] == [ids[4], ids[2]]
    second = client.get(first["next"]).json()
    assert ([job["job_id"] for job in second["jobs"]], second["next"]) == ([ids[0]], None)


def test_jobs_of_the_command_line_are_not_visible_over_http(client: Client, batches_of) -> None:  # type: ignore[no-untyped-def]
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,1")
    assert listed(client) == []
    assert client.get(f"/api/jobs/{batch.job_id}/").status_code == 404
    assert client.get(f"/api/jobs/{batch.job_id}/rejects/").status_code == 404


def test_a_new_token_does_not_have_the_jobs_of_a_revoked_one_of_the_same_name(client: Client, sent: list[int]) -> None:
    job = upload(client, Idempotency_Key="mine").json()
    revoke_token("tests")
    assert client.get(job["url"]).status_code == 401
    successor = Client(headers={"Authorization": f"Bearer {create_token('tests')}"})
    assert listed(successor) == []
    assert successor.get(job["url"]).status_code == 404
    assert upload(successor, Idempotency_Key="mine").json()["job_id"] != job["job_id"]


def job_with_lost_input(client: Client) -> IngestFile:
    job_id = upload(client, Idempotency_Key="mine").json()["job_id"]
    (file,) = IngestFile.objects.filter(job_id=job_id)
    spool.discard(file.location)
    return file


def test_a_repeated_upload_replaces_the_lost_input_of_its_job(client: Client, sent: list[int]) -> None:
    lost = job_with_lost_input(client)
    first, *rest = lost.job.batches.order_by("pk")
    load_batch(first.pk)
    first.refresh_from_db()
    assert (first.state, "no such file" in first.error) == ("parked", True)
    sent.clear()
    again = upload(client, Idempotency_Key="mine")
    assert (again.status_code, again["Idempotent-Replayed"], again.json()["job_id"]) == (202, "true", lost.job_id)
    assert sent == [lost.job_id]
    for batch in (first, *rest):
        load_batch(batch.pk)
    assert set(lost.job.batches.values_list("state", flat=True)) == {"done"}
    assert Reading.objects.count() == 3


def test_the_file_of_a_repeated_upload_is_removed_if_the_job_is_done(client: Client, sent: list[int]) -> None:
    done = job_with_lost_input(client)
    done.job.batches.update(state="done", finished_at=timezone.now())
    assert upload(client, Idempotency_Key="mine").status_code == 202
    assert list(spool.entries(spool.FILES)) == []


def test_a_repeated_upload_is_refused_while_the_spool_is_unavailable(
    client: Client, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = job_with_lost_input(client)

    def unreachable(_: str) -> bool:
        raise OSError(EIO, "Input/output error")

    monkeypatch.setattr(spool, "exists", unreachable)
    client.raise_request_exception = False
    assert upload(client, Idempotency_Key="mine").status_code >= 500
    lost.refresh_from_db()
    assert spool.is_spooled(lost.location)
    monkeypatch.undo()
    monkeypatch.setattr("telemetry.intake.send_job", sent.append)
    assert upload(client, Idempotency_Key="mine").status_code == 202


UNDEFINED = b"time,device,load\n2024-05-01T00:00Z,K\xe4lte,1\n2024-05-01T01:00Z,\x81,2\n2024-05-01T02:00Z,b,NAN\n"


def test_a_byte_that_the_charset_does_not_define_is_a_rejected_row(client: Client, sent: list[int]) -> None:
    address = "/api/ingest/?time=time&labels=device&values=load&encoding=cp1252"
    accepted = client.post(address, UNDEFINED, content_type="text/csv")
    assert accepted.status_code == 202
    load(IngestBatch.objects.get(job_id=sent[0]).pk)
    job = client.get(accepted["Location"]).json()
    assert (job["state"], job["inserted"], job["empty"], job["rounded"], job["rejected"]) == ("done", 1, 1, 0, 1)
    assert job["rejects"] == [{"reason": "unreadable label", "column": "device", "rows": 1}]
    (reject,) = rejects.read(job["job_id"])
    assert (reject["line"], reject["raw"]) == (3, "2024-05-01T01:00Z,\\x81,2")


def test_escapes_and_nan_are_read_as_the_parameters_say(client: Client, sent: list[int]) -> None:
    accepted = client.post(
        "/api/ingest/?time=time&labels=device&values=load&escape=%5C&keep_nan=true",
        b'time,device,load\n2024-05-01T00:00Z,"north \\"A\\" mast",NAN\n',
        content_type="text/csv",
    )
    load(IngestBatch.objects.get(job_id=sent[0]).pk)
    assert client.get(accepted["Location"]).json()["inserted"] == 1
    ((device, value),) = Reading.objects.values_list("series__labels__device", "value")
    assert (device, str(value)) == ('north "A" mast', "nan")
    refused = client.post("/api/ingest/?time=time&values=load&escape=ab", b"time,load\n", content_type="text/csv")
    assert refused.status_code == 422
    assert "escape: expected one punctuation mark" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/ingest/"), ("POST", "/api/ingest"), ("DELETE", "/api/jobs/")]
)
def test_plain_http_is_refused_where_https_is_required(settings: Settings, method: str, path: str) -> None:
    settings.SECURE_SSL_REDIRECT = True
    refused = Client().generic(method, path, secure=False)
    assert (refused.status_code, refused["Content-Type"]) == (403, "application/problem+json")
    assert "over https only" in refused.json()["detail"]
    assert "Location" not in refused


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/none/", 404), ("DELETE", "/api/jobs/", 405), ("POST", "/api/jobs", 404)],
)
def test_problems_have_the_same_security_headers_as_other_answers(
    settings: Settings, method: str, path: str, status: int
) -> None:
    settings.SECURE_HSTS_SECONDS = 60
    refused = Client().generic(method, path, secure=True)
    assert (refused.status_code, refused["Content-Type"]) == (status, "application/problem+json")
    assert refused["Strict-Transport-Security"] == "max-age=60"
    assert refused["X-Content-Type-Options"] == "nosniff"
    assert int(refused["Content-Length"]) == len(refused.content)


def test_a_host_name_that_is_not_allowed_is_named(settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["localhost"]
    refused = Client().get("/api/jobs/", headers={"Host": "elsewhere.example"})
    assert refused.status_code == 400
    assert "host 'elsewhere.example' is not in the server's setting ALLOWED_HOSTS" in refused.json()["detail"]


def test_an_error_in_a_list_names_its_parameter() -> None:
    token = create_token("lists")
    query = "time=time&values=a%00b&name=a.csv"
    refused = Client(headers={"Authorization": f"Bearer {token}"}).post(f"/api/ingest/?{query}", b"a", "text/csv")
    assert refused.status_code == 422
    assert [fault["parameter"] for fault in refused.json()["errors"]] == ["values"]


def test_a_job_document_lists_a_limited_number_of_parked_batches(client: Client, sent: list[int]) -> None:
    job = upload(client).json()
    batch = IngestBatch.objects.filter(job_id=job["job_id"]).first()
    assert batch is not None
    for _ in range(150):
        batch.pk, batch.state = None, IngestBatch.State.PARKED
        batch.save()
    document = client.get(job["url"]).json()
    assert (len(document["parked_batches"]), document["parked"]) == (100, 150)
