"""What the integration tests share."""

import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connections
from pytest_django.fixtures import Settings

from poolhouse.conf import options
from telemetry.chunks import forget_chunk_facts
from telemetry.formats import Columns
from telemetry.intake import create_job, open_input
from telemetry.models import IngestBatch
from worker import series

COLUMNS = Columns(time="time", labels=("device",), values=("load", "heat"), null_values=("",))


def run(*arguments: str) -> str:
    """Run a management command in this process; give what it prints."""
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def await_that(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    """Wait for what another process or thread is about to do."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process for the length of a block, at most 4 seconds: its sockets accept, and never answer."""
    thaw = threading.Timer(4, os.kill, (pid, signal.SIGCONT))  # whoever waits without a bound is late, not lost
    os.kill(pid, signal.SIGSTOP)
    thaw.start()
    try:
        yield
    finally:
        thaw.cancel()
        os.kill(pid, signal.SIGCONT)


@contextmanager
def claimed_by_another_worker(batch: IngestBatch) -> Iterator[None]:
    """Hold a batch's row for the length of a block, as a worker does that is loading it."""
    worker = connections.create_connection("default")
    try:
        with worker.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT FROM ingest_batch WHERE id = %s FOR UPDATE", [batch.pk])
        yield
    finally:
        worker.close()


@pytest.fixture(autouse=True)
def forget_series() -> None:
    """A test's rollback takes series and chunks away, so the process must not remember them."""
    series.forget_series()
    forget_chunk_facts()


@pytest.fixture
def configure(settings: Settings) -> Iterator[Callable[..., None]]:
    """Set keys of POOLHOUSE for the length of a test."""

    def set_keys(**keys: object) -> None:
        settings.POOLHOUSE = {**settings.POOLHOUSE, **keys}
        options.cache_clear()

    yield set_keys
    options.cache_clear()


@pytest.fixture(autouse=True)
def own_spool(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> None:
    """A spool of the test's own, and empty."""
    settings.INGEST_SPOOL = str(tmp_path_factory.mktemp("spool"))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids that were given to the queue, which nobody reads here."""
    ids: list[int] = []
    monkeypatch.setattr("telemetry.intake.send_batches", ids.extend)
    return ids


@pytest.fixture
def batches_of(tmp_path: Path, sent: list[int]):  # type: ignore[no-untyped-def]
    """Record a job of one CSV file with these lines, and give its batches."""

    def make(*lines: str, batch_rows: int = 100) -> list[IngestBatch]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
        path.write_text("\n".join(["time,device,load,heat", *lines, ""]))
        job = create_job([open_input(str(path))], COLUMNS, batch_rows=batch_rows)
        return list(job.batches.order_by("pk"))

    return make
