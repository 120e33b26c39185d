"""The queue's contract: what the web may ask of the worker, by name, so that neither imports the other."""

import base64
import json
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

LOAD_BATCH = "worker.load_batch"
RESEND_UNFINISHED = "worker.resend_unfinished"
INGEST_QUEUE = "ingest"


def send_batches(batch_ids: Iterable[int]) -> None:
    """Ask the worker to load batches; a message carries the id alone, the table knows the rest.

    Raises:
        kombu.exceptions.OperationalError: the broker cannot be reached.

    """
    app = import_string(settings.CELERY_APP)
    with app.producer_or_acquire() as producer:
        for batch_id in batch_ids:
            app.send_task(LOAD_BATCH, args=(batch_id,), queue=INGEST_QUEUE, producer=producer)


def waiting_batches() -> set[int]:
    """Give the ids of the batches whose messages wait in the queue; one that a worker has taken waits no more.

    Raises:
        redis.RedisError, kombu.exceptions.OperationalError: the broker cannot be reached.
    """
    app = import_string(settings.CELERY_APP)
    with app.connection_for_read() as connection:
        messages = connection.default_channel.client.lrange(INGEST_QUEUE, 0, -1)
    return {_batch_id(message) for message in map(json.loads, messages) if message["headers"]["task"] == LOAD_BATCH}


def _batch_id(message: dict[str, Any]) -> int:
    arguments, *_ = json.loads(base64.b64decode(message["body"]))
    return int(arguments[0])
