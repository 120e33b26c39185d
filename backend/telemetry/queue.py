"""The queue's contract: what the web may ask of the worker, by name, so that neither imports the other."""

from collections.abc import Iterable

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
