"""The tasks: from the queue to the loader, and what follows when it fails."""

import logging
import random
from typing import Any

import psycopg2.errors
from celery import Task, shared_task
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from kombu.exceptions import OperationalError as BrokerError

from poolhouse.identity import current
from telemetry.formats import BadInput, MissingFileError
from telemetry.queue import LOAD_BATCH, RESEND_UNFINISHED, send_batches, waiting_batches
from worker import ledger, progress
from worker.loader import DuplicateReadingError, load
from worker.progress import is_lock_exhaustion

logger = logging.getLogger(__name__)

# SQLSTATEs of what passes by itself: connection failures, transaction rollbacks (deadlocks), insufficient resources
# (too many connections, disk full), the server's shutdown. https://www.postgresql.org/docs/17/errcodes-appendix.html
TRANSIENT_SQLSTATES = ("08", "40", "53", "57P")
BACKOFF_MAX_S = 60


@shared_task(name=LOAD_BATCH, bind=True, max_retries=None)
def load_batch(self: "Task[Any, Any]", batch_id: int, *, is_new_attempt: bool = True) -> None:
    """Load one batch, however often it is delivered.

    Input that cannot be used parks the batch. What passes by itself is tried again, with back-off, for as long as it
    takes, and is not counted as the batch's fault. Anything else is, and so is an attempt that takes its process down;
    INGEST_MAX_ATTEMPTS of them park the batch.
    """
    is_over = True
    try:
        with ledger.loading(batch_id) as is_mine:
            # A message that comes again tells of a process that ended: that counts, whatever it was sent for.
            is_new_attempt = is_new_attempt or bool((self.request.delivery_info or {}).get("redelivered"))
            if is_mine and _may_begin(batch_id, is_new_attempt=is_new_attempt):
                is_over = load(batch_id)
        if not is_over:
            _send_rest(batch_id)
    except MissingFileError as error:
        ledger.park(batch_id, f"{error} (looked for by {current().name}; files must be where the workers see them)")
    except (BadInput, DuplicateReadingError) as error:
        ledger.park(batch_id, str(error))
    except Exception as error:
        if _is_settled(batch_id, error):
            return
        retries = self.request.retries
        countdown_s = min(BACKOFF_MAX_S, 2**retries) * random.uniform(0.5, 1)  # noqa: S311 - jitter
        if is_transient(error):
            logger.warning("batch %d waits %.1f s: %s", batch_id, countdown_s, error)
            connection.close()
            raise self.retry(kwargs={"is_new_attempt": False}, countdown=countdown_s) from error
        logger.exception("batch %d failed", batch_id)
        if ledger.note_failure(batch_id, f"{type(error).__name__}: {error}", retried_in_s=countdown_s):
            raise self.retry(kwargs={"is_new_attempt": True}, countdown=countdown_s) from error


def _may_begin(batch_id: int, *, is_new_attempt: bool) -> bool:
    """Count the attempt before anything can go wrong; a batch that took too many processes down is parked instead."""
    if not is_new_attempt:
        return True
    attempts = ledger.begin(batch_id)
    if attempts > settings.INGEST_MAX_ATTEMPTS:
        ledger.park(
            batch_id, f"{attempts - 1} attempts ended without a word: its worker was killed, or ran out of memory"
        )
        return False
    return attempts > 0


def _is_settled(batch_id: int, error: Exception) -> bool:
    """Return True if there is nothing more to do for a batch whose loading was stopped, or takes too many locks."""
    if isinstance(error.__cause__, psycopg2.errors.QueryCanceled):
        connection.close()  # it may have been the unlocking that was cancelled
        return progress.is_cancelled(batch_id)
    return is_lock_exhaustion(error) and not progress.narrow(batch_id)


def _send_rest(batch_id: int) -> None:
    """Send a batch again that is loaded in part: others have their turn, and no task takes too long."""
    try:
        send_batches([batch_id])
    except BrokerError as error:
        logger.warning("batch %d is loaded in part; beat sends it again, since the broker is away: %s", batch_id, error)


def is_transient(error: Exception) -> bool:
    """Say whether an error passes by itself: the server or the way to it, not the statement or its data."""
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    sqlstate = getattr(error.__cause__, "pgcode", None)
    return sqlstate is None or sqlstate.startswith(TRANSIENT_SQLSTATES)


@shared_task(name=RESEND_UNFINISHED)
def resend_unfinished() -> None:
    """Send again what the ledger has as unfinished and the broker has lost."""
    send_batches(ledger.lost_batches(waiting_batches()))
