"""An answer to COMMIT that is lost on its way: what was committed keeps its input, whatever its client was told."""

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import pytest

from config.env import Database, read
from sandbox.stack import Stack
from tests.acceptance.conftest import Running, started
from tests.conftest import await_that
from tests.relay import Relay, relay

CSV = b"time,device,value\n" + b"".join(b"2024-05-01T00:%02d:00Z,a,%d\n" % (n, n) for n in range(60))
PATH = f"/api/ingest/?{urlencode({'time': 'time', 'labels': 'device', 'values': 'value'})}"


@pytest.fixture(scope="module")
def cut() -> Iterator[Relay]:
    with relay(read(Database).db_port, "web@") as made:
        yield made


@pytest.fixture(scope="module")
def behind_relay(make_stack: Callable[..., Stack], cut: Relay) -> Iterator[Running]:
    stack = make_stack(DB_PORT=str(cut.port))
    with started(stack) as running:
        yield running


def upload(running: Running, token: str, key: str) -> tuple[int, http.client.HTTPMessage, dict[str, object]]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "text/csv", "Idempotency-Key": key}
    with closing(http.client.HTTPConnection("127.0.0.1", running.stack.web_port, timeout=60)) as connection:
        connection.request("POST", PATH, CSV, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, json.loads(answer.read())


def test_an_upload_whose_commit_had_no_answer_is_loaded_once_and_its_repetition_is_told_its_job(
    behind_relay: Running, cut: Relay
) -> None:
    token = behind_relay.manage("create_token", "tests").stdout.strip()
    spool = Path(behind_relay.stack.variables["INGEST_SPOOL"]) / "files"
    cut.commits_to_lose = 1
    status, _, problem = upload(behind_relay, token, "monday")
    assert (status, cut.commits_to_lose) == (503, 0), problem
    status, headers, job = upload(behind_relay, token, "monday")
    assert (status, headers["Idempotent-Replayed"]) == (202, "true")
    assert len([path for path in spool.rglob("*") if path.is_file()]) == 1, (
        "the first upload's file is kept, the second one's is not needed"
    )

    def documents() -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(behind_relay.manage("ingest_status", "--json").stdout)
        return found

    await_that(lambda: all(document["state"] == "done" for document in documents()))
    (document,) = documents()
    assert (document["job_id"], document["inserted"], document["rejected"]) == (job["job_id"], 60, 0)
