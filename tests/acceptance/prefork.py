"""A Celery application with Django's native pool, as a project has it that adds this app: for `test_prefork.py`."""

import json
import os
import sys

from celery import Celery

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
app.conf.update(worker_prefetch_multiplier=1, task_default_queue="prefork", result_key_prefix="prefork")
Imports().watch()  # were there any, children would be forked in the midst of them
django.setup()


@app.task
def double(number: int) -> int:
    """Ask the database."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT 2 * %s", [number])
        (answer,) = cursor.fetchone()
    return int(answer)
