"""The queue's contract: what the web may ask of the worker, by name, so that neither imports the other."""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.conf import settings
from django.utils.module_loading import import_string

LOAD_BATCH = "worker.load_batch"
SEND_JOB = "worker.send_job"
RESEND_UNFINISHED = "worker.resend_unfinished"
CLEAN_SPOOL = "worker.clean_spool"
INGEST_QUEUE = "ingest"
# About 1 KiB each. The sweeper looks at so many of them, however many there are.
WAITING_MAX = 1000

T = TypeVar("T")


def send_job(job_id: int) -> None:
    """Ask the worker to send the messages of a job's batches. It is one message, so that no request sends thousands.

    Raises:
        kombu.exceptions.OperationalError: the broker cannot be reached.
    """
    _celery().send_task(SEND_JOB, args=(job_id,), queue=INGEST_QUEUE)


def send_batches(batch_ids: Iterable[int]) -> None:
    """Ask the worker to load batches; a message carries the id alone, the table knows the rest.

    Raises:
        kombu.exceptions.OperationalError: the broker cannot be reached.
    """
    app = _celery()
    with app.producer_or_acquire() as producer:
        for batch_id in batch_ids:
            app.send_task(LOAD_BATCH, args=(batch_id,), queue=INGEST_QUEUE, producer=producer)


def _celery() -> Any:
    return import_string(settings.CELERY_APP)


def spread(batches: Sequence[T], lanes: int) -> list[T]:
    """Order batches so that those which are loaded at the same time do not lie side by side in their file.

    Neighbours have neighbouring times, and their workers would wait for each other at the same pages of the index.

    Args:
        batches: in the order of the file.
        lanes: how many are loaded at the same time; each works its way through a part of the file.
    """
    length = -(-len(batches) // lanes)
    return [batch for step in range(length) for batch in batches[step::length]]


@dataclass(frozen=True)
class Waiting:
    """The messages that are taken from the queue next."""

    batch_ids: set[int]
    job_ids: set[int]
    """of the jobs whose remaining batches are sent next"""
    is_all: bool
    """whether the queue holds no others"""


def waiting() -> Waiting:
    """Look at the WAITING_MAX messages that are taken next; one that a worker has taken waits no more.

    Raises:
        redis.RedisError, kombu.exceptions.OperationalError: the broker cannot be reached.
    """
    with _celery().connection_for_read() as connection:
        # Messages are pushed to the left end of the list and taken from the right one.
        messages = connection.default_channel.client.lrange(INGEST_QUEUE, -WAITING_MAX, -1)
    read = [json.loads(message) for message in messages]
    return Waiting(_ids_of(LOAD_BATCH, read), _ids_of(SEND_JOB, read), is_all=len(read) < WAITING_MAX)


def _ids_of(task: str, messages: Sequence[dict[str, Any]]) -> set[int]:
    return {_argument_of(message) for message in messages if message["headers"]["task"] == task}


def _argument_of(message: dict[str, Any]) -> int:
    arguments, *_ = json.loads(base64.b64decode(message["body"]))
    return int(arguments[0])
