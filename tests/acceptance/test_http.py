"""The HTTP API on the real web: uploads of every format, refused and repeated ones, and clients that disconnect."""

import gzip
import http.client
import io
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from config.env import Database, read
from sandbox.isolation import connect
from sandbox.processes import peak_memory_bytes
from sandbox.stack import Stack
from tests.acceptance.conftest import Running, started
from tests.conftest import DEADLINE_S

MAX_BYTES = 200_000_000
COLUMNS = {"time": "time", "labels": "device", "values": "value"}
CSV = b"time,device,value\n" + b"".join(b"2024-05-01T00:%02d:%02dZ,a,%d\n" % (*divmod(n, 60), n) for n in range(900))
TIMES = pa_csv.ConvertOptions(column_types={"time": pa.timestamp("us", "UTC")})
TABLE = pa_csv.read_csv(io.BytesIO(CSV), convert_options=TIMES)


@dataclass(frozen=True)
class Answer:
    """An answer of the web."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The body, as data."""
        document: dict[str, Any] = json.loads(self.body)
        return document


def answer_of(response: http.client.HTTPResponse) -> Answer:
    return Answer(response.status, response.headers, response.read())


def answer_on(connection: socket.socket) -> Answer:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return answer_of(response)


@dataclass(frozen=True)
class Client:
    """A client with a token."""

    running: Running
    token: str

    @property
    def port(self) -> int:
        """Of the web."""
        return self.running.stack.web_port

    @property
    def spool(self) -> Path:
        """The folder that web and worker share."""
        return Path(self.running.stack.variables["INGEST_SPOOL"])

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request; an iterable body goes in chunks."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self.token}", **given})
            return answer_of(connection.getresponse())
        finally:
            connection.close()

    def upload(self, body: Any, kind: str = "text/csv", query: Mapping[str, str] = {}, **headers: str) -> Answer:
        """Send a file."""
        path = f"/api/ingest/?{urlencode({**COLUMNS, **query})}"
        return self.ask("POST", path, body, Content_Type=kind, **headers)

    def finished(self, job_url: str) -> dict[str, Any]:
        """Wait for the end of a job."""
        over = ("done", "parked", "cancelled")
        job: dict[str, Any] = until(lambda: self.ask("GET", job_url).document, lambda job: job["state"] in over)
        return job

    def spooled(self) -> list[Path]:
        """The uploads that are in the spool."""
        return [path for path in self.spool.glob("files/**/*") if path.is_file()]

    def job_ids(self) -> list[int]:
        """Return the ids of all jobs, newest first."""
        return [job["job_id"] for job in self.ask("GET", "/api/jobs/").document["jobs"]]

    def open_upload(self, length: int | None, first: bytes, header: str = "") -> socket.socket:
        """Send the beginning of an upload; the caller sends the rest."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)
        head = (
            f"POST /api/ingest/?{urlencode(COLUMNS)} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
            f"Authorization: Bearer {self.token}\r\n"
        )
        head += f"Content-Length: {length}\r\n" if length is not None else ""
        head += f"{header}\r\n" if header else ""
        client.sendall(f"{head}\r\n".encode() + first)
        return client


def until(look: Callable[[], Any], is_right: Callable[[Any], bool] = bool) -> Any:
    """Wait until a condition is true."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_right(seen := look()):
        assert time.monotonic() < deadline, f"still {seen}"
        time.sleep(0.02)
    return seen


@pytest.fixture(scope="module")
def client(make_stack: Callable[..., Stack]) -> Iterator[Client]:
    stack = make_stack(
        INGEST_INPUT_GRACE_S="0",
        INGEST_CLEAN_INTERVAL_S="1",
        INGEST_UPLOAD_MAX_BYTES=str(MAX_BYTES),
        INGEST_UPLOAD_IDLE_S="1",
        INGEST_BATCH_ROWS="400",
        INGEST_MAX_UNFINISHED_BATCHES="20",
    )
    with started(stack) as running:
        yield Client(running, running.manage("create_token", "tests").stdout.strip())


@pytest.fixture(autouse=True)
def empty(client: Client) -> None:
    """Remove all readings before each test."""
    connection = connect(read(Database), name=client.running.stack.variables["DB_NAME"])
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("TRUNCATE reading")
    finally:
        connection.close()


def arrow(new: Callable[..., Any]) -> bytes:
    sink = pa.BufferOutputStream()
    with new(sink, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=300)
    return bytes(sink.getvalue())


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(TABLE, sink, row_group_size=100)
    return bytes(sink.getvalue())


def ndjson() -> bytes:
    lines = (line.split(b",") for line in CSV.splitlines()[1:])
    return b"".join(b'{"time":"%s","device":"%s","value":%s}\n' % (*line,) for line in lines)


@pytest.mark.parametrize(
    ("kind", "coding", "body"),
    [
        ("text/csv", "identity", CSV),
        ("text/csv; charset=latin-1", "gzip", gzip.compress(CSV)),
        ("application/x-ndjson", "zstd", pa.compress(ndjson(), "zstd", asbytes=True)),
        ("application/vnd.apache.parquet", "identity", parquet()),
        ("application/vnd.apache.arrow.stream", "identity", arrow(pa.ipc.new_stream)),
        ("application/vnd.apache.arrow.file", "gzip", gzip.compress(arrow(pa.ipc.new_file))),
    ],
)
@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunks"])
def test_an_upload_is_loaded_and_leaves_the_spool(
    client: Client, kind: str, coding: str, body: bytes, in_chunks: bool
) -> None:
    pieces = (body[at : at + 1000] for at in range(0, len(body), 1000))
    accepted = client.upload(pieces if in_chunks else body, kind, Content_Encoding=coding)
    assert accepted.status == 202, accepted.body
    assert accepted.document["url"] == accepted.headers["Location"]
    job = client.finished(accepted.headers["Location"])
    assert (job["state"], job["rows"], job["inserted"], job["rejected"]) == ("done", 900, 900, 0)
    assert job["batches"] == 3
    until(lambda: client.spooled() == [])


def test_rejects_can_be_fetched(client: Client) -> None:
    accepted = client.upload(CSV + b"soon,a,1\nsoon,a,2\n", query={"name": "mine.csv"})
    job = client.finished(accepted.headers["Location"])
    assert (job["state"], job["inserted"], job["rejected"]) == ("done", 900, 2)
    assert job["rejects"] == [{"reason": "unreadable time", "column": "time", "rows": 2}]
    listed = client.ask("GET", job["rejects_url"])
    assert listed.headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line)["line"] for line in listed.body.splitlines()] == [902, 903]
    assert json.loads(listed.body.splitlines()[0])["file"] == "mine.csv"


def test_a_job_with_too_many_rejects_is_parked(client: Client) -> None:
    accepted = client.upload(CSV + b"soon,a,1\n", query={"max_rejects": "0"})
    job = client.finished(accepted.headers["Location"])
    assert job["state"] == "parked"
    assert "rejected rows of the job: 1, the limit is 0" in job["parked_batches"][0]["error"]
    until(lambda: len(client.spooled()) == 1)  # its own stays, since it may be retried
    client.running.manage("clean_spool", "--older-than", "0", "--parked-and-cancelled")
    assert client.spooled() == []


def test_jobs_are_listed_a_page_at_a_time(client: Client) -> None:
    ids = [client.upload(CSV).document["job_id"] for _ in range(3)]
    first = client.ask("GET", "/api/jobs/?limit=2").document
    assert [job["job_id"] for job in first["jobs"]] == ids[:0:-1]
    assert client.ask("GET", first["next"]).document["jobs"][0]["job_id"] == ids[0]
    for job_id in ids:
        client.finished(f"/api/jobs/{job_id}/")


BOMB = gzip.compress(CSV + b" " * MAX_BYTES)
CUT_OFF = pa.compress(CSV, "zstd", asbytes=True)[:-9]


@pytest.mark.parametrize(
    ("status", "detail", "sent"),
    [
        (401, "a valid token is required", {"Authorization": "Bearer no"}),
        (
            422,
            "missing column 'größe'; the file has",
            {"query": {"labels": "größe"}, "kind": "text/csv; charset=latin-1"},
        ),
        (413, "more than 200,000,000 bytes", {"Content_Length": str(MAX_BYTES + 1)}),
        (413, "more than 200,000,000 bytes", {"body": [b" " * 1_000_000] * 201}),
        (413, "more than 200,000,000 bytes", {"body": BOMB, "Content_Encoding": "gzip"}),
        (415, "unsupported Content-Type 'text/plain'", {"kind": "text/plain"}),
        (415, "unsupported Content-Type ''", {"kind": ""}),
        (415, "unsupported Content-Encoding 'br'", {"Content_Encoding": "br"}),
        (422, "cannot be unpacked as gzip", {"Content_Encoding": "gzip"}),
        (422, "cannot be unpacked as zstd: Truncated", {"body": CUT_OFF, "Content_Encoding": "zstd"}),
        (422, "missing column 'zeit'", {"query": {"time": "zeit"}}),
        (422, "expected different columns for the time, labels and values", {"query": {"time": "value"}}),
        (
            422,
            "timezone: expected a time zone such as Europe/Berlin or UTC, got 'Mars'",
            {"query": {"timezone": "Mars"}},
        ),
        (422, "max_rejects: expected a number of rows", {"query": {"max_rejects": "few"}}),
        (415, "such as latin-1 or cp1252, got 'utf-16'", {"kind": "text/csv; charset=utf-16"}),
        (415, "such as latin-1 or cp1252, got 'rot13'", {"kind": "text/csv; charset=rot13"}),
        (401, "a valid token is required", {"kind": "text/csv; charset=rot13", "Authorization": ""}),
        (422, "unknown parameter 'delimeter'; allowed: time, labels", {"query": {"delimeter": ";"}}),
        (422, "name: NUL characters are not allowed", {"query": {"name": "\0"}}),
        (422, "it makes more than 20 batches with batch_rows = 1; use a larger value", {"query": {"batch_rows": "1"}}),
        (422, "the file is empty", {"body": b""}),
        (422, "not a valid Parquet file", {"kind": "application/vnd.apache.parquet"}),
        (422, "expected an Idempotency-Key of 1 to 255 characters, got 300", {"Idempotency_Key": "x" * 300}),
    ],
)
def test_an_upload_that_is_refused_leaves_no_job_and_no_file(
    client: Client, status: int, detail: str, sent: dict[str, Any]
) -> None:
    before = client.job_ids()
    refused = client.upload(**{"body": CSV, **sent})
    assert_problem(refused, status, detail)
    assert client.job_ids() == before
    until(lambda: client.spooled() == [])


@pytest.mark.parametrize(
    ("status", "detail", "path", "headers"),
    [
        (401, "a valid token is required", "/api/jobs/", {"Authorization": ""}),
        (404, "this token has no job 4711", "/api/jobs/4711/", {}),
        (404, "this token has no job 4711", "/api/jobs/4711/rejects/", {}),
        (404, "addresses: /api/ingest/, /api/jobs/, /api/jobs/{job_id}/", "/api/nothing/", {}),
        (405, "GET /api/ingest/: Specified method is invalid for this resource; allowed: POST", "/api/ingest/", {}),
        (404, "this token has no job 99999999999999999999", "/api/jobs/99999999999999999999/", {}),
        (422, "limit: Input should be less than", "/api/jobs/?limit=9999", {}),
        (422, "unknown parameter 'page'; allowed: limit, before", "/api/jobs/?page=2", {}),
        (422, "before: Input should be less than", "/api/jobs/?before=99999999999999999999", {}),
    ],
)
def test_a_request_that_is_refused(
    client: Client, status: int, detail: str, path: str, headers: dict[str, str]
) -> None:
    assert_problem(client.ask("GET", path, **headers), status, detail)


def test_only_the_upload_address_works_without_a_trailing_slash(client: Client) -> None:
    accepted = client.ask("POST", f"/api/ingest?{urlencode(COLUMNS)}", iter([CSV]), Content_Type="text/csv")
    assert accepted.status == 202, accepted.body
    client.finished(accepted.headers["Location"])
    assert_problem(client.ask("POST", "/api/jobs", b""), 404, "the address must end with a slash: /api/jobs/")


@pytest.mark.parametrize(
    ("status", "request_line", "headers"),
    [
        (400, "GET / HTTP/1.1", "a b: 1"),
        (400, "NONSENSE", ""),
        (400, "GET / HTTP/9.9", ""),
        (414, f"GET /{'x' * 5000} HTTP/1.1", ""),
        (431, "GET / HTTP/1.1", f"X: {'x' * 9000}"),
        (431, "GET / HTTP/1.1", "\r\n".join(f"X{number}: 1" for number in range(101))),
        (431, "GET / HTTP/1.1", f"X: {'x' * 70_000}"),
        (417, "GET / HTTP/1.1", "Expect: more"),
        (501, "POST /api/ingest/ HTTP/1.1", "Transfer-Encoding: brotli"),
    ],
)
def test_a_request_that_the_server_cannot_read_is_refused_with_a_problem(
    client: Client, status: int, request_line: str, headers: str
) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=DEADLINE_S) as connection:
        given = f"Host: localhost\r\n{headers}\r\n" if headers else "Host: localhost\r\n"
        connection.sendall(f"{request_line}\r\n{given}\r\n".encode())
        refused = answer_on(connection)
    assert (refused.status, refused.headers["Content-Type"]) == (status, "application/problem+json"), refused.body
    assert refused.document["status"] == status
    assert 0 < len(refused.document["detail"]) <= 300


def assert_problem(refused: Answer, status: int, detail: str) -> None:
    assert (refused.status, refused.headers["Content-Type"]) == (status, "application/problem+json"), refused.body
    assert detail in refused.document["detail"]
    assert refused.document["status"] == status
    assert {"type", "title", "instance"} <= refused.document.keys()


def test_an_upload_that_is_repeated_with_its_key_gets_the_first_job(client: Client) -> None:
    first = client.upload(CSV, Idempotency_Key="again")
    client.finished(first.headers["Location"])
    second = client.upload(CSV, Idempotency_Key="again")
    assert (second.status, second.headers["Location"]) == (202, first.headers["Location"])
    assert second.headers["Idempotent-Replayed"] == "true"
    other = client.upload(CSV + b"2024-05-02T00:00:00Z,a,1\n", Idempotency_Key="again")
    assert (other.status, "use a new key" in other.document["detail"]) == (422, True)
    somebody_else = Client(client.running, client.running.manage("create_token", "somebody else").stdout.strip())
    assert somebody_else.upload(CSV, Idempotency_Key="again").headers["Location"] != first.headers["Location"]
    until(lambda: client.spooled() == [])


@pytest.mark.parametrize(("key", "jobs"), [("at once", 1), ("", 2)], ids=["one key", "no key"])
def test_the_same_file_uploaded_twice_at_once_is_loaded_once(client: Client, key: str, jobs: int) -> None:
    headers: dict[str, Any] = {"Idempotency_Key": key} if key else {}
    half = len(CSV) // 2

    def slowly() -> Iterator[bytes]:
        yield CSV[:half]
        until(lambda: len(client.spooled()) == 2)  # both are on their way
        yield CSV[half:]

    with ThreadPoolExecutor(2) as both:
        answers = list(both.map(lambda _: client.upload(slowly(), **headers), range(2)))
    assert [answer.status for answer in answers] == [202, 202]
    urls = {answer.headers["Location"] for answer in answers}
    assert len(urls) == jobs
    finished = [client.finished(url) for url in urls]
    assert {job["state"] for job in finished} == {"done"}
    assert sum(job["inserted"] for job in finished) == 900
    assert sum(job["skipped"] for job in finished) == 900 * (jobs - 1)
    until(lambda: client.spooled() == [])


def test_an_upload_that_is_cut_off_leaves_no_job_and_no_file(client: Client) -> None:
    before = client.job_ids()
    with client.open_upload(len(CSV), CSV[:1000]):
        until(lambda: len(client.spooled()) == 1)
    until(lambda: client.spooled() == [])
    assert client.job_ids() == before


def test_a_stalled_upload_is_answered_with_400_and_leaves_no_job_and_no_file(client: Client) -> None:
    before = client.job_ids()
    with client.open_upload(len(CSV), CSV[:1000]) as silent:
        assert_problem(answer_on(silent), 400, "the body was cut off: the client is too slow: it has fallen behind")
    assert client.job_ids() == before
    until(lambda: client.spooled() == [])


def test_a_body_whose_chunks_are_broken_is_the_client_s_fault(client: Client) -> None:
    before = client.job_ids()
    with client.open_upload(None, b"", "Transfer-Encoding: chunked") as broken:
        broken.sendall(b"5\r\ntime,\r\nzz\r\n")
        assert_problem(answer_on(broken), 400, "the body was cut off")
    assert client.job_ids() == before
    until(lambda: client.spooled() == [])


def test_incomplete_requests_without_a_token_do_not_block_the_web(client: Client) -> None:
    stranger = Client(client.running, "no token")
    with ExitStack() as strangers:
        for _ in range(20):  # more than there are threads
            half = strangers.enter_context(stranger.open_upload(1_000_000_000, b"x"))
            assert_problem(answer_on(half), 401, "a valid token is required")
        assert client.ask("GET", "/api/jobs/").status == 200


def test_an_upload_without_a_length_is_refused(client: Client) -> None:
    with client.open_upload(None, b"") as endless:
        assert_problem(answer_on(endless), 411, "expected a Content-Length")


def test_an_upload_holds_no_database_connection_while_its_body_arrives(client: Client) -> None:
    with client.open_upload(len(CSV), CSV[:1000]) as slow:
        until(lambda: len(client.spooled()) == 1)
        client.running.stack.await_fresh_reports()
        reports = [report for report in client.running.stack.reports() if report.service == "web"]
        assert [pool.in_use for report in reports for pool in report.pools] == [0, 0]
        slow.sendall(CSV[1000:])
        accepted = answer_on(slow)
    assert accepted.status == 202
    client.finished(accepted.headers["Location"])


def test_a_large_upload_is_not_held_in_memory(client: Client) -> None:
    pids = [int(report.pid) for report in client.running.stack.reports() if report.service == "web"]
    before = sum(peak_memory_bytes(pid) for pid in pids)
    piece = b"no,such,columns\n" + b"1,2,3\n" * 166_000
    refused = client.upload(piece for _ in range(180))
    assert_problem(refused, 422, "missing column 'time'")
    assert sum(peak_memory_bytes(pid) for pid in pids) - before < 40_000_000


def test_a_revoked_token_is_refused(client: Client) -> None:
    token = client.running.manage("create_token", "a guest").stdout.strip()
    guest = Client(client.running, token)
    assert guest.ask("GET", "/api/jobs/").status == 200
    twice = client.running.manage("create_token", "a guest", check=False)
    assert (twice.returncode, "'a guest' already has a valid token" in twice.stderr) == (2, True)
    client.running.manage("revoke_token", "a guest")
    assert guest.ask("GET", "/api/jobs/").status == 401
    assert client.running.manage("revoke_token", "a guest", check=False).returncode == 2


def test_the_api_describes_itself_on_a_page_that_needs_nothing_from_elsewhere(client: Client) -> None:
    document = client.ask("GET", "/api/openapi.json").document
    upload = document["paths"]["/api/ingest/"]["post"]
    assert "application/vnd.apache.arrow.stream" in upload["requestBody"]["content"]
    assert {"202", "401", "413", "415", "422", "429", "503", "507"} <= upload["responses"].keys()
    for path in ("/api/jobs/", "/api/jobs/{job_id}/", "/api/jobs/{job_id}/rejects/"):
        assert {"200", "401", "422", "503"} <= document["paths"][path]["get"]["responses"].keys()
        assert ("404" in document["paths"][path]["get"]["responses"]) == ("job_id" in path)
    (empty,) = [parameter for parameter in upload["parameters"] if parameter["name"] == "empty"]
    assert "default" not in empty["schema"], "the page would send it without its empty text"
    assert "''" in empty["description"]
    assert {"time", "values", "Idempotency-Key"} <= {parameter["name"] for parameter in upload["parameters"]}
    page = client.ask("GET", "/api/docs").body.decode()
    assert "https://" not in page.replace("https://www.w3.org", "")
    scripts = [part.partition('"')[0] for part in page.split('src="')[1:]]
    assert scripts
    for script in scripts:
        assert client.ask("GET", script).status == 200
