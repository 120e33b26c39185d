"""The schedule of beat's tasks."""

from typing import Any

from django.conf import settings

from telemetry.queue import CLEAN_SPOOL, RESEND_UNFINISHED


def beat_schedule() -> dict[str, Any]:
    """Return the schedule: find lost batches five times per INGEST_RESEND_AFTER_S, and clean the spool.

    Both tasks use the default queue; behind a long backlog in the queue of batches they would expire.
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
