"""What the integration tests share."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connections
from django.db.models import QuerySet
from django.utils import timezone
from pytest_django.fixtures import Settings

from poolhouse.conf import options
from telemetry import spool
from telemetry.chunks import forget_chunk_facts
from telemetry.formats import Columns
from telemetry.inputs import Inputs, open_input
from telemetry.intake import create_job
from telemetry.models import IngestBatch
from telemetry.queue import Waiting
from tests.conftest import await_that, frozen
from worker import series

__all__ = ["await_that", "frozen"]

COLUMNS = Columns(time="time", labels=("device",), values=("load", "heat"), null_values=("",))


def run(*arguments: str) -> str:
    """Run a management command in this process; give what it prints."""
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


@contextmanager
def claimed_by_another_worker(batch: IngestBatch) -> Iterator[None]:
    """Hold a batch's row for the length of a block, as a worker does that is loading it."""
    worker = connections.create_connection("default")
    try:
        with worker.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT FROM ingest_batch WHERE id = %s FOR UPDATE", [batch.pk])
            yield
            cursor.execute("ROLLBACK")  # the lock is free when this returns, and only some time after a disconnect
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
    spool.prepare()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids of the jobs that were announced; there is no broker here."""
    ids: list[int] = []
    monkeypatch.setattr("telemetry.intake.send_job", ids.append)
    return ids


@pytest.fixture
def batches_of(tmp_path: Path, sent: list[int]):  # type: ignore[no-untyped-def]
    """Record a job of one CSV file with these lines, and give its batches."""

    def make(*lines: str, batch_rows: int = 100) -> list[IngestBatch]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
        path.write_text("\n".join(["time,device,load,heat", *lines, ""]))
        job = create_job(Inputs([open_input(str(path))]), COLUMNS, batch_rows=batch_rows)
        return list(job.batches.order_by("pk"))

    return make


NOTHING_WAITS = Waiting(set(), set(), is_all=True)


def long_ago(batches: "QuerySet[IngestBatch]") -> None:
    """Let batches have been enqueued and sent so long ago that they are overdue."""
    then = datetime(2024, 1, 1, tzinfo=UTC)
    batches.update(enqueued_at=then, due_at=then, sent_at=then)


def due_again(batch: IngestBatch) -> None:
    """Let a batch's next attempt be due now."""
    IngestBatch.objects.filter(pk=batch.pk).update(due_at=timezone.now())
