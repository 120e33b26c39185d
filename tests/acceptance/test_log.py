"""The log of the real web and the real worker: whose statements were slow, and no secret."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from config.env import Database, Deployment, Queue, read
from sandbox.stack import Stack
from tests.acceptance.conftest import Running, started
from tests.conftest import DEADLINE_S, await_that


@pytest.fixture(scope="module")
def running(make_stack: Callable[..., Stack]) -> Iterator[Running]:
    """A stack that logs every statement as slow, as JSON."""
    stack = make_stack(LOG_FORMAT="json", DB_SLOW_QUERY_MS="0")
    with started(stack) as running:
        yield running


def documents(stack: Stack) -> list[dict[str, Any]]:
    """The log's JSON lines; before each, the manager puts the time and the process's name."""
    texts = (line[line.index("{") :] for line in stack.log.read_text().splitlines() if '{"time": ' in line)
    return [json.loads(text) for text in texts]


def await_document(stack: Stack, **expected: str) -> dict[str, Any]:
    def found() -> Iterator[dict[str, Any]]:
        for document in documents(stack):
            if all(document.get(name, "").startswith(text) for name, text in expected.items()):
                yield document

    await_that(lambda: any(True for _ in found()), f"a line in the log with {expected}")
    return next(found())


def test_a_statement_is_logged_with_its_request_view_and_caller(running: Running) -> None:
    running.get("/?token=sesame")
    line = await_document(running.stack, logger="poolhouse.tracing.statements", work="request GET /")
    assert line["work"] == "request GET /"
    assert line["view"] == "config.views.index"
    assert line["caller"].partition(":")[0].endswith("/backend/config/views.py")
    assert line["sql"] == "SELECT pg_backend_pid(), current_setting(?), current_setting(?)"


def test_a_statement_of_the_worker_is_logged_with_its_task(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "small.csv"
    path.write_text("time,device,load\n2024-05-01T00:00Z,sesame,1\n")
    columns = ("--time", "time", "--labels", "device", "--values", "load")
    assert "1 readings inserted" in running.manage("enqueue_ingest", str(path), *columns, "--wait").stdout
    line = await_document(running.stack, logger="poolhouse.tracing.statements", work="task worker.load_batch[")
    assert "/backend/telemetry/ledger.py:" in line["caller"]


def test_the_answer_tells_its_database_time_in_development(running: Running) -> None:
    with urlopen(f"{running.stack.address}/", timeout=DEADLINE_S) as answer:
        assert 'desc="1 query"' in answer.headers["Server-Timing"]


def test_the_log_holds_no_secret(running: Running) -> None:
    headers = {"Authorization": "Bearer sesame", "Content-Type": "text/csv", "Cookie": "sessionid=sesame"}
    address = f"{running.stack.address}/api/ingest/?time=sesame&labels=sesame&values=sesame"
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(address, data=b"sesame", headers=headers), timeout=DEADLINE_S)
    refused.value.close()
    await_document(running.stack, logger="poolhouse.tracing.statements", work="request POST /api/ingest/")
    log = running.stack.log.read_text()
    secrets = (read(Database).db_pass, read(Queue).redis_password, read(Deployment).secret_key)
    assert "sesame" not in log
    assert not [secret for secret in secrets if secret.get_secret_value() in log]
