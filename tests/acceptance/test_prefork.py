"""A Celery worker that forks, with Django's native pool, beside this app: every task is done."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from config.env import CHECKOUT, Database, Queue, read
from sandbox.servers import Place
from tests.acceptance.test_wheel import database_settings

TASKS = 60
PATIENCE_S = 120


@pytest.fixture
def client(servers: Place, tmp_path: Path) -> Iterator[Celery]:
    """Send to a worker of four processes, each replaced after a task."""
    url = read(Queue).url.removesuffix("/0") + "/15"
    database = {**database_settings(read(Database)), "ENGINE": "django.db.backends.postgresql"}
    database["OPTIONS"] = {"pool": {"min_size": 1, "max_size": 2}}
    environment = {
        **os.environ,
        "PREFORK": json.dumps({"database": database, "redis_url": url}),
        "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{CHECKOUT / 'backend'}",
    }
    worker = [sys.executable, "-m", "celery", "--app", "tests.acceptance.prefork", "worker", "--loglevel", "info"]
    options = ["--pool", "prefork", "--concurrency", "4", "--max-tasks-per-child", "4"]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [*worker, *options], cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        ) as process,
    ):
        try:
            yield Celery("client", broker=url, backend=url, set_as_current=False)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its children as well, which may hang


def test_every_task_is_done_while_the_worker_forks_and_reports(client: Celery) -> None:
    results = [
        client.send_task("tests.acceptance.prefork.double", [number], queue="prefork") for number in range(TASKS)
    ]
    assert [result.get(timeout=PATIENCE_S) for result in results] == [2 * number for number in range(TASKS)]
