"""Ctrl-C at any moment of enqueueing: a job that was recorded has its input."""

import gzip
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from django.core.management import CommandError
from django.db import connections
from django.db import transaction as django_transaction
from django.db.backends.base import base

from telemetry import inputs, intake, queue, spool
from telemetry.management.commands import enqueue_ingest
from telemetry.models import IngestFile
from tests.integration.conftest import run

pytestmark = pytest.mark.django_db(transaction=True)

OURS = {module.__file__ for module in (enqueue_ingest, inputs, intake, queue)}
# Of Django what commits. Elsewhere it takes locks, which an interrupt at the wrong line would leave locked for good.
DJANGOS = {django_transaction.__file__, base.__file__}
COMMITTING = {"__exit__", "commit", "_commit", "set_autocommit"}


class Interrupts:
    """Raise KeyboardInterrupt before a certain line of the traced modules is run; count the lines."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.lines = 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        """Trace a call, and then each line of it."""
        code = frame.f_code
        if code.co_filename not in OURS and not (code.co_filename in DJANGOS and code.co_name in COMMITTING):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                raise KeyboardInterrupt
        return self


def enqueue(path: Path, at: int | None = None) -> int:
    """Enqueue a file with an interrupt before a line; return how many lines were run."""
    interrupts = Interrupts(at)
    with connection_of_its_own(), tracing(interrupts), suppress(KeyboardInterrupt, CommandError):
        run("enqueue_ingest", str(path), "--time", "time", "--labels", "device", "--values", "load")
    return interrupts.lines


@contextmanager
def connection_of_its_own() -> Iterator[None]:
    """Use another connection for the length of a block, as another process does: an interrupt may leave it unusable."""
    before, own = connections["default"], connections.create_connection("default")
    connections["default"] = own
    try:
        yield
    finally:
        connections["default"] = before
        if own.connection is not None:
            own.connection.close()


@contextmanager
def tracing(trace: Interrupts) -> Iterator[None]:
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def test_an_interrupt_at_any_moment_leaves_no_job_without_its_input(tmp_path: Path, sent: list[int]) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"time,device,load\n2024-05-01T00:00Z,a,1\n"))
    lines = enqueue(path)
    recorded_before, removed = IngestFile.objects.count(), 0
    for at in range(1, lines + 1):
        spooled_before = len(list(spool.entries(spool.FILES)))
        enqueue(path, at)
        locations = set(IngestFile.objects.values_list("location", flat=True))
        spooled = {entry.location for entry in spool.entries(spool.FILES)}
        assert locations <= spooled, f"before line {at} of {lines}"
        removed += len(spooled) == spooled_before
    assert IngestFile.objects.count() > recorded_before, "some interrupts came after COMMIT"
    assert removed > lines / 2, "most came before, and left no file"
