"""Commands when the server is away or short of something: one line, exit status 1, never a traceback."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection
from rich.console import Console

from config.env import CHECKOUT
from telemetry.formats import SPOOL_MARKER
from telemetry.models import IngestBatch
from telemetry.watch import watch_job
from tests.plugin import superuser_sql
from worker.loader import load

COMMANDS = (
    ("ingest_status",),
    ("ingest_status", "1", "--rejects"),
    ("retry_ingest", "1"),
    ("cancel_ingest", "1"),
    ("clean_spool",),
    ("bucket_means", "load", "--by", "device"),
    ("create_token", "somebody"),
    ("revoke_token", "somebody"),
    ("enqueue_ingest", "{csv}", "--time", "time", "--values", "load", "--wait"),
    ("generate_readings", "--from", "2024-01-01", "--to", "2024-01-02", "--enqueue"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_a_command_without_its_server_ends_with_a_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "readings.csv").write_text("time,load\n2024-05-01T00:00Z,1\n")
    left = tmp_path / "spool/files/left.csv"  # something to look up
    left.parent.mkdir(parents=True)
    left.touch()
    (tmp_path / "spool" / SPOOL_MARKER).touch()
    words = [word.format(csv=tmp_path / "readings.csv") for word in command]
    answer = subprocess.run(
        [sys.executable, str(CHECKOUT / "backend/manage.py"), *words],
        env={**os.environ, "DB_PORT": "1", "INGEST_SPOOL": str(tmp_path / "spool")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 1, answer.stderr
    assert "Traceback" not in answer.stderr
    assert "the database cannot be used: " in answer.stderr
    assert [line for line in answer.stderr.splitlines() if "the database cannot be used" in line] == [
        answer.stderr.splitlines()[-1]
    ]


@pytest.mark.django_db(transaction=True)
def test_watching_goes_on_when_the_server_ends_the_session(batches_of: Callable[..., list[IngestBatch]]) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    load(batch.pk)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    superuser_sql(f"SELECT pg_terminate_backend({pid}, 10000)")
    out = io.StringIO()
    assert watch_job(batch.job_id, Console(file=out, width=200))
    assert out.getvalue().count("Cannot query the database: ") == 1
    assert f"job {batch.job_id} done" in out.getvalue()
