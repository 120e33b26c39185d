"""The queue's contract: what the web may ask of the worker, by name, so that neither imports the other."""

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from django.conf import settings
from django.utils.module_loading import import_string

LOAD_BATCH = "worker.load_batch"
RESEND_UNFINISHED = "worker.resend_unfinished"
CLEAN_SPOOL = "worker.clean_spool"
INGEST_QUEUE = "ingest"

T = TypeVar("T")


def send_batches(batch_ids: Iterable[int]) -> None:
    """Ask the worker to load batches; a message carries the id alone, the table knows the rest.

    Raises:
        kombu.exceptions.OperationalError: the broker cannot be reached.

    """
    app = import_string(settings.CELERY_APP)
    with app.producer_or_acquire() as producer:
        for batch_id in spread(list(batch_ids), settings.WORKER_PROCESSES):
            app.send_task(LOAD_BATCH, args=(batch_id,), queue=INGEST_QUEUE, producer=producer)


def spread(batches: Sequence[T], lanes: int) -> list[T]:
    """Order batches so that those which are loaded at the same time do not lie side by side in their file.

    Neighbours have neighbouring times, and their workers would wait for each other at the same pages of the index.

    Args:
        batches: in the order of the file.
        lanes: how many are loaded at the same time; each works its way through a part of the file.
    """
    length = -(-len(batches) // lanes)
    return [batch for step in range(length) for batch in batches[step::length]]


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
