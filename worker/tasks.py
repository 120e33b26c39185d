"""The Celery tasks: loading batches with retries, sending them, and cleaning the spool."""

import logging
import random
import time
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import psycopg2.errors
from celery import Task, shared_task
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from kombu.exceptions import OperationalError as BrokerError

from poolhouse.identity import current
from telemetry import ledger
from telemetry.formats import BadInput, MissingFileError
from telemetry.ledger import Interruption
from telemetry.queue import CLEAN_SPOOL, LOAD_BATCH, RESEND_UNFINISHED, SEND_JOB, send_batches, send_job, waiting
from telemetry.retention import clean
from worker import progress
from worker.loader import DuplicateReadingError, load
from worker.progress import LockTableFullError

logger = logging.getLogger(__name__)

# Classes of SQLSTATEs of temporary errors: connection failures, transaction rollbacks (deadlocks), insufficient
# resources (too many connections, disk full) and operator intervention. The last includes the server's shutdown, and a
# cancelled statement, since the cancellation may have been meant for the batch that the session loaded before.
# https://www.postgresql.org/docs/17/errcodes-appendix.html
TRANSIENT_SQLSTATES = ("08", "40", "53", "57")
BACKOFF_MAX_S = 60
# Batches of a job that are in the queue at the same time: enough for all processes, but little memory of the broker.
SENT_AT_ONCE = 1000
# The number of those that are not loaded yet when the next ones are sent.
SENT_AHEAD = 200


@shared_task(name=SEND_JOB)
def send_batches_of_job(job_id: int) -> None:
    """Send some of a job's batches, and this task again before the last of them if there are more."""
    batch_ids, is_rest = ledger.next_unsent(job_id, SENT_AT_ONCE)
    send_batches(batch_ids[:-SENT_AHEAD])
    if is_rest:
        send_job(job_id)
    send_batches(batch_ids[-SENT_AHEAD:])


@shared_task(name=LOAD_BATCH, bind=True, max_retries=None)
def load_batch(self: "Task[Any, Any]", batch_id: int, *, unrecorded: dict[str, Any] | None = None) -> None:
    """Load one batch; it is loaded only once even if its message is delivered repeatedly.

    Input that cannot be used parks the batch. An interruption, such as a server that is not available, is not counted
    as a failure of the batch: it is tried again, with back-off, for INGEST_RETRY_MAX_S. Any other failure is counted,
    and so is an attempt whose process was killed; INGEST_MAX_ATTEMPTS of them park the batch.

    Args:
        self: the task.
        batch_id: the batch.
        unrecorded: the interruption of the last attempt, if the ledger was not available to record it.
    """
    attempt = Attempt(batch_id, unrecorded)
    countdown_s = _backoff_s(self)
    try:
        kwargs = attempt.make()
    except Exception as error:
        if _is_settled(batch_id, error):
            return
        if is_transient(error):
            logger.warning("batch %d interrupted: %s", batch_id, error)
            kwargs = attempt.note_interruption(error, countdown_s)
        else:
            logger.exception("batch %d failed", batch_id)
            reason = f"{type(error).__name__}: {error}"
            kwargs = {} if ledger.note_failure(batch_id, reason, retried_in_s=countdown_s) else None
        if kwargs is not None:
            raise self.retry(kwargs=kwargs, countdown=countdown_s) from error
        return
    if kwargs is not None:
        raise self.retry(kwargs=kwargs, countdown=countdown_s)


class Attempt:
    """One attempt to load a batch, and what is recorded of it in the ledger."""

    def __init__(self, batch_id: int, unrecorded: dict[str, Any] | None) -> None:
        self._batch_id = batch_id
        self._unrecorded = unrecorded
        self._is_counted = False

    def make(self) -> dict[str, Any] | None:
        """Load the batch if it is due, or park it if its input cannot be used.

        Returns:
            The keyword arguments of another message, which has to record what this one could not; None for no message.
        """
        try:
            with ledger.loading(self._batch_id) as is_mine:
                if not is_mine:  # the row is locked by the worker that is loading it
                    return {"unrecorded": self._unrecorded} if self._unrecorded else None
                self._record_last()
                is_over = not self._begin() or load(self._batch_id)
            if not is_over:
                _send_rest(self._batch_id)
        except MissingFileError as error:
            text = f"{error} (on {current().name}; the file must be readable by all workers, or enqueued with --spool)"
            ledger.park(self._batch_id, text)
        except (BadInput, DuplicateReadingError) as error:
            ledger.park(self._batch_id, str(error))
        return None

    def _record_last(self) -> None:
        if self._unrecorded is not None:
            ledger.note_interruption(self._batch_id, Interruption(**self._unrecorded), retried_in_s=0)
            self._unrecorded = None

    def _begin(self) -> bool:
        """Count the attempt before it is made; park a batch that has killed too many processes.

        Returns:
            True if the batch has to be loaded now.
        """
        attempts = ledger.begin(self._batch_id)
        if attempts > settings.INGEST_MAX_ATTEMPTS:
            ledger.park_after_deaths(self._batch_id, attempts - 1)
            return False
        self._is_counted = attempts > 0
        return self._is_counted

    def note_interruption(self, error: Exception, countdown_s: float) -> dict[str, Any] | None:
        """Record an interruption in the ledger or, if that is not available, in the message of the next attempt.

        Returns:
            The keyword arguments of that message; None if there is no other attempt.
        """
        connection.close()
        reason = f"{type(error).__name__}: {error}"
        interruption = self._unrecorded or asdict(Interruption(reason, time.time(), self._is_counted))
        try:
            goes_on = ledger.note_interruption(self._batch_id, Interruption(**interruption), retried_in_s=countdown_s)
        except (OperationalError, InterfaceError) as unreachable:
            logger.warning("batch %d: cannot record the interruption yet: %s", self._batch_id, unreachable)
            connection.close()
            return {"unrecorded": interruption}
        return {} if goes_on else None


def _backoff_s(task: "Task[Any, Any]") -> float:
    jitter: float = random.uniform(0.5, 1)  # noqa: S311 - no secret
    return min(BACKOFF_MAX_S, 2.0**task.request.retries) * jitter


def _is_settled(batch_id: int, error: Exception) -> bool:
    """Return True if no attempt is left for a batch, because its job was cancelled, or it was parked for its locks."""
    if isinstance(error.__cause__, psycopg2.errors.QueryCanceled):
        connection.close()  # the cancelled statement may have been the one that unlocks
        return ledger.note_cancellation(batch_id)
    return isinstance(error, LockTableFullError) and not progress.reduce_chunks(batch_id, error.chunk_count)


def _send_rest(batch_id: int) -> None:
    """Send a partly loaded batch again, so that other batches are loaded in between, and no task takes too long."""
    ledger.mark_sent([batch_id])
    try:
        send_batches([batch_id])
    except BrokerError as error:
        logger.warning(
            "batch %d is partly loaded; cannot reach the broker to send it again, beat will do it: %s", batch_id, error
        )


def is_transient(error: Exception) -> bool:
    """Return True if an error is temporary, such as one of the server, the storage or the network, not of the data."""
    if isinstance(error, OSError):  # permanent errors of a source are raised as BadInput
        return True
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    sqlstate = getattr(error.__cause__, "pgcode", None)
    return sqlstate is None or sqlstate.startswith(TRANSIENT_SQLSTATES)


@shared_task(name=RESEND_UNFINISHED)
def resend_unfinished() -> None:
    """Send the messages again that the ledger waits for and the broker has lost."""
    seen = waiting()
    send_batches(ledger.lost_batches(seen))
    for job_id in ledger.lost_jobs(seen):
        send_job(job_id)


@shared_task(name=CLEAN_SPOOL)
def clean_spool() -> None:
    """Remove files from the spool that no unfinished job needs and no upload is writing."""
    removed = [entry.size_bytes for entry in clean(timedelta(seconds=settings.INGEST_CLEAN_AGE_S))]
    logger.info("removed %d files (%d bytes) from the spool", len(removed), sum(removed))
