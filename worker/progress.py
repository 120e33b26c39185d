"""How far a batch is that is loaded in several transactions, and what becomes of one that takes too many locks."""

import logging
from dataclasses import dataclass

from django.db import OperationalError
from django.db.models import F

from telemetry import ledger
from telemetry.chunks import LockTable, chunk_budget, chunk_facts, forget_chunk_facts
from telemetry.models import IngestBatch

logger = logging.getLogger(__name__)

NARROWER_BY = 8


@dataclass(frozen=True)
class Loaded:
    """What the transactions of a batch so far have loaded, in readings."""

    inserted: int
    updated: int
    skipped: int

    @property
    def count(self) -> int:
        """All of them."""
        return self.inserted + self.updated + self.skipped

    def __add__(self, other: "Loaded") -> "Loaded":
        """Return both together."""
        return Loaded(self.inserted + other.inserted, self.updated + other.updated, self.skipped + other.skipped)


def loaded(batch_id: int) -> Loaded:
    """Return what is loaded of a batch."""
    counts = IngestBatch.objects.values_list("inserted_count", "updated_count", "skipped_count")
    return Loaded(*counts.get(pk=batch_id))


def advance(batch_id: int, until_us: int, more: Loaded) -> None:
    """Record that a batch is loaded up to a time, in the transaction that loads it.

    Its attempts and interruptions are forgotten: they bound those that achieve nothing.
    """
    IngestBatch.objects.filter(pk=batch_id).update(
        loaded_until_us=until_us,
        attempts=0,
        failing_since=None,
        error="",
        cell_count=F("cell_count") + more.count,
        inserted_count=F("inserted_count") + more.inserted,
        updated_count=F("updated_count") + more.updated,
        skipped_count=F("skipped_count") + more.skipped,
    )


def is_lock_exhaustion(error: Exception) -> bool:
    """Return True if the server's lock table was full.

    SQLSTATE 53200 is also that of a server without memory, which passes; the hint, in any language, names the setting.
    """
    cause = error.__cause__
    hint = getattr(getattr(cause, "diag", None), "message_hint", None) or ""
    return getattr(cause, "pgcode", None) == "53200" and "max_locks_per_transaction" in hint


class LockTableFullError(OperationalError):
    """The server's lock table was full while a batch was being loaded."""

    def __init__(self, error: Exception, chunk_count: int) -> None:
        super().__init__(str(error))
        self.chunk_count = chunk_count
        """chunks that the batch touches, as far as it was read"""


def narrow(batch_id: int, chunk_count: int) -> bool:
    """Let a batch with which the lock table was full touch fewer chunks at a time; park it if it does so already.

    A batch of few chunks is not at fault: another session holds the locks, and the attempt was interrupted.

    Returns:
        True if it may be tried again.
    """
    forget_chunk_facts()
    budget = chunk_budget()
    limit = max(1, budget // NARROWER_BY)
    if chunk_count <= limit:
        return True
    if IngestBatch.objects.filter(pk=batch_id, state=IngestBatch.State.QUEUED, chunk_limit=None).update(
        chunk_limit=limit
    ):
        logger.warning("batch %d: the server's lock table is full; next with %d chunks at a time", batch_id, limit)
        return True
    ledger.park(batch_id, _exhaustion(budget, limit, chunk_facts().locks))
    return False


def _exhaustion(budget: int, limit: int, locks: LockTable) -> str:
    return (
        f"out of shared memory: the server's lock table ({locks.size:,} locks) was full with at most {budget:,} chunks "
        f"in a transaction, and again with {limit:,}. Raise max_locks_per_transaction on the server (now "
        f"{locks.max_locks_per_transaction}), or use larger chunks (READING_CHUNK_INTERVAL_HOURS, which manage.py "
        f"migrate applies to new chunks); then manage.py retry_ingest"
    )
