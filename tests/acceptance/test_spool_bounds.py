"""The limits of the spool on the real web, worker and beat: a token's quota during an upload, and the cleaning."""

import os
import time
from collections.abc import Callable, Iterator

import pytest

from sandbox.stack import Stack
from tests.acceptance.conftest import started
from tests.acceptance.test_http import CSV, Client, assert_problem, until

QUOTA_BYTES = 200_000_000


@pytest.fixture(scope="module")
def client(make_stack: Callable[..., Stack]) -> Iterator[Client]:
    stack = make_stack(
        INGEST_TOKEN_SPOOL_BYTES=str(QUOTA_BYTES),
        INGEST_UPLOAD_MAX_S="1800",
        INGEST_CLEAN_INTERVAL_S="1",
        INGEST_CLEAN_AGE_S="3600",
    )
    with started(stack) as running:
        yield Client(running, running.manage("create_token", "tests").stdout.strip())


def test_an_upload_that_exceeds_the_quota_is_refused_and_leaves_nothing(client: Client) -> None:
    assert_problem(client.upload([b" " * 1_000_000] * 201), 507, f"with this upload they would exceed {QUOTA_BYTES:,}")
    assert client.spooled() == []
    accepted = client.upload(CSV)
    assert client.finished(accepted.headers["Location"])["inserted"] == 900


def test_beat_removes_files_that_are_not_needed(client: Client) -> None:
    folder = client.spool / "files"
    folder.mkdir(exist_ok=True)
    old, young = folder / "left-behind.csv", folder / "under-way.csv"
    old.write_bytes(CSV)
    young.write_bytes(CSV)
    before = time.time() - 7200
    os.utime(old, (before, before))
    until(lambda: not old.exists())
    assert young.exists()
