"""What beat asks for, and how often."""

from typing import Any

from django.conf import settings

from telemetry.queue import CLEAN_SPOOL, RESEND_UNFINISHED


def beat_schedule() -> dict[str, Any]:
    """Look for lost batches several times in the span after which one counts as lost, and clean the spool.

    Both go through the default queue: behind a long backlog in the queue of batches they would expire.
    """
    every_s = max(1.0, settings.INGEST_RESEND_AFTER_S / 5)
    return {
        "resend unfinished batches": {
            "task": RESEND_UNFINISHED,
            "schedule": every_s,
            "options": {"expires": every_s},
        },
        "clean the spool": {
            "task": CLEAN_SPOOL,
            "schedule": float(settings.INGEST_CLEAN_INTERVAL_S),
            "options": {"expires": settings.INGEST_CLEAN_INTERVAL_S},
        },
    }
