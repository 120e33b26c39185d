"""How many chunks one transaction may touch: each chunk takes several locks, and the whole server shares one table.

PostgreSQL has room for max_locks_per_transaction x (max_connections + max_prepared_transactions) locks. A transaction
that needs more does not fail alone: until it ends, every session that needs a lock gets "out of shared memory".
"""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
from django.conf import settings
from django.db import ProgrammingError, connection

from telemetry.formats.times import EPOCH

# Counted in pg_locks (PostgreSQL 17, TimescaleDB 2.19): a chunk that a transaction creates takes four locks until the
# commit (the table, its index, its row type and the constraint on its time). An existing chunk takes one lock for COPY,
# and two for a merge or a query. The 16 locks of the fast path are too few to matter.
LOCKS_PER_NEW_CHUNK = 4
LOCKS_PER_READ_CHUNK = 2
WORKERS_SHARE = 0.25
"""share of the lock table for all worker processes together"""
QUERY_SHARE = 0.5
"""share of the lock table for a query over all chunks of one input"""

HOUR_US = 3_600_000_000
INTERVALS_H = (1, 6, 12, 24, 7 * 24, 30 * 24, 90 * 24, 365 * 24, 10 * 365 * 24)
FACTS_AGE_S = 30.0


@dataclass(frozen=True)
class LockTable:
    """The server's settings that size its lock table."""

    max_locks_per_transaction: int
    max_connections: int
    max_prepared_transactions: int

    @property
    def size(self) -> int:
        """The number of locks that the server has room for."""
        return self.max_locks_per_transaction * (self.max_connections + self.max_prepared_transactions)

    def chunks_at_once(self, worker_processes: int) -> int:
        """Return how many chunks a transaction may touch while every worker process has one open."""
        return max(1, int(self.size * WORKERS_SHARE) // (worker_processes * LOCKS_PER_NEW_CHUNK))

    @property
    def queryable_chunks(self) -> int:
        """The number of chunks that a query may cover without exceeding QUERY_SHARE."""
        return max(1, int(self.size * QUERY_SHARE) // LOCKS_PER_READ_CHUNK)


@dataclass(frozen=True)
class ChunkFacts:
    """The chunk intervals of the hypertable `reading`, and the size of the server's lock table."""

    interval_us: int
    """of new chunks"""
    least_us: int
    """the shortest interval of new and existing chunks"""
    locks: LockTable


@dataclass(frozen=True)
class Edges:
    """The begins and ends of the existing chunks, in microseconds since 1970, in order of time."""

    begins_us: np.ndarray
    ends_us: np.ndarray


_known: tuple[float, ChunkFacts] | None = None


def chunk_facts() -> ChunkFacts:
    """Return the chunk facts, at most FACTS_AGE_S old, because an interval may be changed at any time."""
    global _known  # noqa: PLW0603 - a cache of one value
    now_s = time.monotonic()
    if _known is None or now_s - _known[0] > FACTS_AGE_S:
        _known = (now_s, _query_facts())
    return _known[1]


def forget_chunk_facts() -> None:
    """Drop the cached facts, so that the next call queries the server."""
    global _known  # noqa: PLW0603 - a cache of one value
    _known = None


def chunk_budget() -> int:
    """Return how many chunks one transaction of a worker may touch."""
    return chunk_facts().locks.chunks_at_once(settings.WORKER_PROCESSES)


def _query_facts() -> ChunkFacts:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT dimension.interval_length,
                   least(dimension.interval_length, (
                       SELECT min(range_end - range_start) FROM _timescaledb_catalog.dimension_slice slice
                       WHERE slice.dimension_id = dimension.id
                   )),
                   current_setting('max_locks_per_transaction')::int,
                   current_setting('max_connections')::int,
                   current_setting('max_prepared_transactions')::int
            FROM _timescaledb_catalog.dimension
            JOIN _timescaledb_catalog.hypertable ON hypertable.id = hypertable_id
            WHERE (schema_name, table_name, column_name) = (current_schema(), 'reading', 'time')
            """
        )
        if (found := cursor.fetchone()) is None:
            raise ProgrammingError("table reading does not exist or is not a hypertable; run manage.py migrate")
        interval_us, least_us, *lock_settings = found
        return ChunkFacts(interval_us, least_us, LockTable(*lock_settings))


def chunk_edges() -> Edges:
    """Return the edges of the existing chunks, which keep the interval that they were created with."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT range_start, range_end
            FROM _timescaledb_catalog.dimension_slice slice
            JOIN _timescaledb_catalog.dimension ON dimension.id = dimension_id
            JOIN _timescaledb_catalog.hypertable ON hypertable.id = hypertable_id
            WHERE (schema_name, table_name, column_name) = (current_schema(), 'reading', 'time')
            ORDER BY range_start
            """
        )
        edges = np.array(cursor.fetchall(), dtype=np.int64).reshape(-1, 2)
    return Edges(edges[:, 0], edges[:, 1])


def query_spans() -> list[tuple[datetime | None, datetime | None]]:
    """Return time ranges (end exclusive) that together cover all readings, each with few enough chunks for one query.

    The first has no begin and the last no end.
    """
    chunks = max(1, chunk_facts().locks.queryable_chunks // 2)
    bounds = [EPOCH + timedelta(microseconds=begin_us) for begin_us in chunk_edges().begins_us[chunks::chunks].tolist()]
    return list(pairwise((None, *bounds, None)))


def chunk_numbers(times_us: np.ndarray, width_us: int) -> np.ndarray:
    """Return the distinct numbers of the chunks of a given width that contain the times, in order."""
    if not len(times_us):
        return np.empty(0, dtype=np.int64)
    first, last = int(times_us.min()) // width_us, int(times_us.max()) // width_us
    if last - first <= 1:  # times that are close together need no division
        return np.arange(first, last + 1)
    numbers = times_us // width_us
    if last - first > 4 * len(numbers):
        return np.unique(numbers)
    seen = np.zeros(last - first + 1, dtype=bool)  # faster than sorting
    seen[numbers - first] = True
    return np.flatnonzero(seen) + first


def chunk_begins(times_us: np.ndarray, edges: Edges, interval_us: int) -> np.ndarray:
    """Return for each time the begin of its existing chunk, or of the chunk that would be created for it."""
    would_be = times_us // interval_us * interval_us
    if not len(edges.begins_us):
        return would_be
    before = np.searchsorted(edges.begins_us, times_us, side="right") - 1
    ends = np.where(before >= 0, edges.ends_us[before], np.iinfo(np.int64).min)
    return np.where(times_us < ends, edges.begins_us[before], np.maximum(would_be, ends))


def chunk_warning(chunk_count: int, facts: ChunkFacts) -> str | None:
    """Return a warning for an input that creates too many chunks, or None."""
    wanted = facts.locks.queryable_chunks
    if chunk_count <= wanted:
        return None
    least_h = chunk_count * facts.interval_us / wanted / HOUR_US
    fitting_h = next((hours for hours in INTERVALS_H if hours >= least_h), INTERVALS_H[-1])
    fitting_count = max(1, round(chunk_count * facts.interval_us / HOUR_US / fitting_h))
    return (
        f"this input creates up to {chunk_count:,} chunks of {facts.interval_us / HOUR_US:,g} hours, more than "
        f"{wanted:,}; loading is slow, and a query over all of them takes more than half of the server's "
        f"{facts.locks.size:,} locks. READING_CHUNK_INTERVAL_HOURS={fitting_h} would create about {fitting_count:,} "
        f"chunks; set it and run manage.py migrate before loading, because it applies to new chunks only"
    )
