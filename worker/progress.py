"""The progress of a batch that is loaded in several transactions, and the handling of a full lock table."""

import logging
from dataclasses import dataclass

from django.db import OperationalError
from django.db.models import F

from telemetry import ledger
from telemetry.chunks import LockTable, chunk_budget, chunk_facts, forget_chunk_facts
from telemetry.models import IngestBatch

logger = logging.getLogger(__name__)

REDUCTION_FACTOR = 8


@dataclass(frozen=True)
class Loaded:
    """The numbers of readings that the transactions of a batch have loaded so far."""

    inserted: int
    updated: int
    skipped: int

    @property
    def count(self) -> int:
        """The number of all readings."""
        return self.inserted + self.updated + self.skipped

    def __add__(self, other: "Loaded") -> "Loaded":
        """Return the sums."""
        return Loaded(self.inserted + other.inserted, self.updated + other.updated, self.skipped + other.skipped)


def loaded(batch_id: int) -> Loaded:
    """Return the numbers of readings that are loaded of a batch, from the ledger."""
    counts = IngestBatch.objects.values_list("inserted_count", "updated_count", "skipped_count")
    return Loaded(*counts.get(pk=batch_id))


def advance(batch_id: int, until_us: int, more: Loaded) -> None:
    """Record that a batch is loaded up to a time, in the transaction that loads it.

    Its attempts and interruptions are reset, since they only limit attempts without progress.
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

    SQLSTATE 53200 also means that the server is out of memory, which is temporary. Only for a full lock table does the
    hint, in any language, contain max_locks_per_transaction.
    """
    cause = error.__cause__
    hint = getattr(getattr(cause, "diag", None), "message_hint", None) or ""
    return getattr(cause, "pgcode", None) == "53200" and "max_locks_per_transaction" in hint


class LockTableFullError(OperationalError):
    """The server's lock table was full while a batch was being loaded."""

    def __init__(self, error: Exception, chunk_count: int) -> None:
        super().__init__(str(error))
        self.chunk_count = chunk_count
        """chunks that the batch touches, as far as it has been read"""


def reduce_chunks(batch_id: int, chunk_count: int) -> bool:
    """Reduce the chunks per transaction of a batch after the lock table was full; if they are reduced already, park it.

    A batch that touches few chunks is not at fault: another session holds the locks, and the attempt was interrupted.

    Returns:
        True if the batch may be tried again.
    """
    forget_chunk_facts()
    budget = chunk_budget()
    limit = max(1, budget // REDUCTION_FACTOR)
    if chunk_count <= limit:
        return True
    if IngestBatch.objects.filter(pk=batch_id, state=IngestBatch.State.QUEUED, chunk_limit=None).update(
        chunk_limit=limit
    ):
        logger.warning(
            "batch %d: the server's lock table was full; trying again with %d chunks per transaction", batch_id, limit
        )
        return True
    ledger.park(batch_id, _exhaustion(budget, limit, chunk_facts().locks))
    return False


def _exhaustion(budget: int, limit: int, locks: LockTable) -> str:
    return (
        f"out of shared memory: the server's lock table ({locks.size:,} locks) was full with {budget:,} chunks per "
        f"transaction, and again with {limit:,}. Raise max_locks_per_transaction on the server (now "
        f"{locks.max_locks_per_transaction}), or use larger chunks (READING_CHUNK_INTERVAL_HOURS, which manage.py "
        f"migrate applies to new chunks); then run manage.py retry_ingest"
    )
