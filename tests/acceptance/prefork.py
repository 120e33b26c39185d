"""A Celery application, as a project has it that adds this app: for `test_prefork.py`."""

import json
import os
import sys
import time
from contextlib import ExitStack
from typing import Any

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import task_internal_error

from tests.integration.forking import Imports

sys.modules["psycopg2"] = None  # type: ignore[assignment]  # Django takes psycopg 3, which its native pool needs

import django  # noqa: E402
from django.conf import settings  # noqa: E402

given = json.loads(os.environ["PREFORK"])
settings.configure(
    INSTALLED_APPS=["poolhouse"],
    DATABASES={"default": given["database"]},
    POOLHOUSE={"REDIS_URL": given["redis_url"], "KEY_PREFIX": "prefork", "PUBLISH_INTERVAL_S": 0.1},
)
# Celery's fixup for Django asks for it; the settings are there already.
os.environ["DJANGO_SETTINGS_MODULE"] = __name__
app = Celery("shop", broker=given["redis_url"], backend=given["redis_url"])
app.conf.update(worker_prefetch_multiplier=1, task_default_queue=given["queue"], result_key_prefix="prefork")
Imports().watch()  # were there any, children would be forked in the midst of them
django.setup()


@task_internal_error.connect(weak=False)
def answer_all_the_same(sender: Any, task_id: str, einfo: Any, **_: Any) -> None:
    """Store a failure for a task that a soft time limit ended before its first line, which Celery does not."""
    sender.backend.mark_as_failure(task_id, einfo.exception)


@app.task
def double(number: int) -> int:
    """Ask the database."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT 2 * %s", [number])
        (answer,) = cursor.fetchone()
    return int(answer)


@app.task
def use_until_interrupted(*, is_waiting: bool) -> dict[str, Any]:
    """Open and return connections, or wait for one, until the soft time limit ends it; tell what it interrupted."""
    from tests.acceptance import interruptions

    place, deadline = "nothing", time.monotonic() + interruptions.PATIENCE_S
    try:
        with ExitStack() as held:
            if is_waiting:
                held.enter_context(interruptions.all_checked_out())
            while time.monotonic() < deadline:
                interruptions.use_a_new_one()
    except (SoftTimeLimitExceeded, RuntimeError) as error:  # RuntimeError: of the interpreter's Condition
        place = interruptions.place_of(error)
    return {"pid": os.getpid(), "place": place, "is_within_bounds": interruptions.is_within_bounds()}


@app.task
def figures() -> dict[str, int]:
    """Return what the pool counts."""
    from tests.acceptance import interruptions

    return interruptions.figures()
