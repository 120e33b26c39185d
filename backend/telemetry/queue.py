"""The tasks that the web sends to the worker, by name, so that neither imports the other."""

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
# Messages of about 1 KiB each; the task that resends lost batches reads no more of the queue than this.
WAITING_MAX = 1000

T = TypeVar("T")


def send_job(job_id: int) -> None:
    """Send one message on which the worker sends those of the job's batches, so that no request sends thousands.

    Raises:
        kombu.exceptions.OperationalError: the broker cannot be reached.
    """
    _celery().send_task(SEND_JOB, args=(job_id,), queue=INGEST_QUEUE)


def send_batches(batch_ids: Iterable[int]) -> None:
    """Send a message for each batch, with nothing but its id; the rest is in the ledger.

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
    """Return batches in an order in which those that are loaded at the same time are not adjacent in their file.

    Adjacent batches have adjacent times, so that their workers would wait for each other on the same index pages.

    Args:
        batches: the batches in the order of the file.
        lanes: the number of batches that are loaded at the same time, each from another part of the file.
    """
    length = -(-len(batches) // lanes)
    return [batch for step in range(length) for batch in batches[step::length]]


@dataclass(frozen=True)
class Waiting:
    """The messages at the head of the queue, which are taken next."""

    batch_ids: set[int]
    job_ids: set[int]
    """of the jobs whose unsent batches are sent next"""
    is_all: bool
    """True if the queue has no other messages"""


def waiting() -> Waiting:
    """Return the next WAITING_MAX messages of the queue, without those that a worker has already taken.

    Raises:
        redis.RedisError, kombu.exceptions.OperationalError: the broker cannot be reached.
    """
    with _celery().connection_for_read() as connection:
        # Messages are pushed at the left end of the list and taken from the right end.
        messages = connection.default_channel.client.lrange(INGEST_QUEUE, -WAITING_MAX, -1)
    read = [json.loads(message) for message in messages]
    return Waiting(_ids_of(LOAD_BATCH, read), _ids_of(SEND_JOB, read), is_all=len(read) < WAITING_MAX)


def _ids_of(task: str, messages: Sequence[dict[str, Any]]) -> set[int]:
    return {_argument_of(message) for message in messages if message["headers"]["task"] == task}


def _argument_of(message: dict[str, Any]) -> int:
    arguments, *_ = json.loads(base64.b64decode(message["body"]))
    return int(arguments[0])
