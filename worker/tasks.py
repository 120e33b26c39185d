"""The tasks: thin doors from the queue to the loader and the ledger."""

from datetime import timedelta
from typing import Any

from celery import Task, shared_task
from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from telemetry.models import IngestBatch
from telemetry.queue import LOAD_BATCH, RESEND_UNFINISHED, send_batches
from worker.loader import fail_batch, load

TRANSIENT = (OperationalError, InterfaceError)
MAX_RETRIES = 8


@shared_task(name=LOAD_BATCH, bind=True, max_retries=MAX_RETRIES)
def load_batch(self: "Task[Any, Any]", batch_id: int) -> None:
    """Load one batch, however often it is delivered; a server that is away is tried again, with back-off."""
    try:
        load(batch_id)
    except TRANSIENT as error:
        if self.request.retries >= MAX_RETRIES:
            fail_batch(batch_id, f"{type(error).__name__}: {error}")
            raise
        raise self.retry(exc=error, countdown=min(60, 2**self.request.retries)) from error
    except Exception as error:
        fail_batch(batch_id, f"{type(error).__name__}: {error}")
        raise


@shared_task(name=RESEND_UNFINISHED)
def resend_unfinished() -> None:
    """Send again what the ledger has had queued for too long: the broker may have lost it. Loading is idempotent."""
    now = timezone.now()
    forgotten = IngestBatch.objects.filter(
        state=IngestBatch.State.QUEUED, enqueued_at__lt=now - timedelta(seconds=settings.INGEST_RESEND_AFTER_S)
    )
    with transaction.atomic():  # a batch that is locked is being loaded
        batch_ids = [batch.pk for batch in forgotten.select_for_update(skip_locked=True).order_by("pk").only("pk")]
        IngestBatch.objects.filter(pk__in=batch_ids).update(enqueued_at=now)
    send_batches(batch_ids)
