"""A Celery worker that forks, beside this app: every task is done, and one that is interrupted keeps no connection."""

import json
import os
import random
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult

from config.env import CHECKOUT, Database, Queue, read
from sandbox.servers import Place
from tests.acceptance import interruptions
from tests.acceptance.test_wheel import database_settings

TASKS = 60
SIZE, INTERRUPTIONS = 2, 15
SOFT_LIMIT_MIN_S, SOFT_LIMIT_S = 0.02, 0.3
PATIENCE_S = 120


Work = Callable[..., AbstractContextManager[Celery]]


@pytest.fixture
def work(servers: Place, tmp_path: Path) -> Work:
    """Start a worker whose processes fork; return what sends it tasks."""
    url = read(Queue).url.removesuffix("/0") + "/15"
    # A queue of its own: children of a worker that was killed have its socket until they end as well, and Redis would
    # send the next worker's first task there.
    queue = f"prefork-{secrets.token_hex(4)}"

    @contextmanager
    def started(database: dict[str, Any], *options: str) -> Iterator[Celery]:
        given = {"database": database_settings(read(Database)) | database, "redis_url": url, "queue": queue}
        environment = {
            **os.environ,
            "PREFORK": json.dumps(given),
            "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{CHECKOUT / 'backend'}",
        }
        worker = [sys.executable, "-m", "celery", "--app", "tests.acceptance.prefork", "worker", "--loglevel", "info"]
        with (
            (tmp_path / "log").open("w") as log,
            subprocess.Popen(
                [*worker, "--pool", "prefork", *options],
                cwd=tmp_path,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            ) as process,
        ):
            try:
                client = Celery("client", broker=url, backend=url, set_as_current=False)
                client.conf.task_default_queue = queue
                yield client
            finally:
                os.killpg(process.pid, signal.SIGKILL)  # its children as well, which may hang

    return started


def send(client: Celery, task: str, *arguments: Any, **options: Any) -> AsyncResult[Any]:
    return client.send_task(f"tests.acceptance.prefork.{task}", arguments, **options)


def test_every_task_is_done_while_the_worker_forks_and_reports(work: Work) -> None:
    native = {"ENGINE": "django.db.backends.postgresql", "OPTIONS": {"pool": {"min_size": 1, "max_size": 2}}}
    with work(native, "--concurrency", "4", "--max-tasks-per-child", "4") as client:
        results = [send(client, "double", number) for number in range(TASKS)]
        assert [result.get(timeout=PATIENCE_S) for result in results] == [2 * number for number in range(TASKS)]


def test_checkouts_that_a_soft_time_limit_breaks_off_keep_no_permit(work: Work) -> None:
    engine = {
        "ENGINE": "poolhouse.engines.postgresql",
        "POOL_OPTIONS": {"POOL_SIZE": SIZE, "MAX_OVERFLOW": 0, "TIMEOUT": interruptions.PATIENCE_S},
        "OPTIONS": {"application_name": "interrupted"},
    }
    with work(engine, "--concurrency", "1") as client:
        answers = interrupted(client, "opened_within", is_waiting=False) + interrupted(client, "wait", is_waiting=True)
        figures = send(client, "figures").get(timeout=PATIENCE_S)
    assert len({answer["pid"] for answer in answers}) == 1, "they have one pool"
    assert all(answer["is_within_bounds"] for answer in answers), answers
    assert figures == interruptions.sound(SIZE), answers


def interrupted(client: Celery, place: str, *, is_waiting: bool) -> list[dict[str, Any]]:
    """Have tasks interrupted until some were in a certain function of the engine; return what they told."""
    chance, limit_s, answers = random.Random(1), SOFT_LIMIT_S, list[dict[str, Any]]()
    while sum(answer["place"] == place for answer in answers) < INTERRUPTIONS:
        options = {"kwargs": {"is_waiting": is_waiting}, "soft_time_limit": chance.uniform(SOFT_LIMIT_MIN_S, limit_s)}
        answer = send(client, "use_until_interrupted", **options).get(timeout=PATIENCE_S, propagate=False)
        if isinstance(answer, dict):  # else the limit came outside the task's own lines
            answers.append(answer)
        limit_s *= 1.02  # a busy machine takes longer to get there
    return answers
