"""Hints on hypertables: what makes queries slow, and the SQL that helps."""

import logging
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from django.db import DEFAULT_DB_ALIAS, connections

from poolhouse.driver import driver, driver_errors, own_connection_params, require_postgresql
from poolhouse.formatting import one_line
from poolhouse.servers.bounded import Cursor

logger = logging.getLogger(__name__)

Kind = Literal["index", "statistics", "chunk_interval"]

# TimescaleDB's advice: the chunks being written, with their indexes, should fit into a quarter of the memory.
# https://docs.tigerdata.com/use-timescale/latest/hypertables/improve-query-performance/
MEMORY_SHARE = 0.25
CHUNKS_MANY = 100
"""a query without a time range opens, locks and plans each of them"""
CHUNKS_WANTED = 50
INTERVALS_H = (1, 6, 12, 24, 7 * 24, 30 * 24, 90 * 24, 365 * 24)
NEWEST_CHUNKS = 4
LOCK_TIMEOUT_MS = 5_000


@dataclass(frozen=True)
class Finding:
    """A cause of slow queries on a hypertable."""

    hypertable: str
    kind: Kind
    text: str
    remedy: str
    """SQL; empty if a person has to choose"""
    outcome: str = "found"
    """found, applied, or why it could not be applied"""


@dataclass(frozen=True)
class _Hypertable:
    name: str
    """quoted"""
    time: str
    """the column"""
    chunk_count: int
    interval_h: float | None
    """None where time is a number"""


def optimize_timescaledb_queries(alias: str = DEFAULT_DB_ALIAS, *, apply: Collection[Kind] = ()) -> list[Finding]:
    """Check a database's hypertables for causes of slow queries, and log each finding.

    index: no index on a series and its time, so a query for one series reads all of them.

    statistics: chunks that were never analyzed, so the planner has no statistics on them.

    chunk_interval: new chunks do not fit into memory, or there are so many small ones that planning takes long.

    Only the kinds in `apply` are changed, by one of several processes that apply at once. An index is built chunk by
    chunk, so that writers wait for one chunk; a new interval applies to new chunks.

    Args:
        alias: of a PostgreSQL database; without TimescaleDB there are no findings. Its Apache edition suffices.
        apply: kinds of findings to be remedied, on a connection outside of every pool.

    Raises:
        ValueError: apply has an unknown kind.
        KeyError: DATABASES has no PostgreSQL database with this alias.
        django.db.Error: the database does not answer, or the role may not read a table.
    """
    if unknown := set(apply) - set(get_args(Kind)):
        raise ValueError(f"apply: expected kinds out of {', '.join(get_args(Kind))}, got {sorted(unknown)}")
    require_postgresql(alias)
    with connections[alias].cursor() as cursor:
        findings = [finding for table in _hypertables(cursor) for finding in _look_at(cursor, table)]
    if any(finding.kind in apply and finding.remedy for finding in findings):
        findings = _apply(alias, findings, apply)
    for finding in findings:
        logger.info("%s: %s: %s; %s: %s", alias, finding.hypertable, finding.text, finding.outcome, finding.remedy)
    return findings


def _look_at(cursor: Any, table: _Hypertable) -> Iterator[Finding]:
    for look in (_index, _statistics, _chunk_interval):
        yield from look(cursor, table)


def _hypertables(cursor: Any) -> list[_Hypertable]:
    cursor.execute("SELECT FROM pg_extension WHERE extname = 'timescaledb'")
    if not cursor.fetchall():
        return []
    cursor.execute(
        """
        SELECT format('%I.%I', hypertable_schema, hypertable_name), column_name, num_chunks,
               extract(epoch FROM time_interval)::float8 / 3600
        FROM timescaledb_information.hypertables
        JOIN timescaledb_information.dimensions USING (hypertable_schema, hypertable_name)
        WHERE dimension_number = 1
        ORDER BY 1
        """
    )
    return [_Hypertable(*row) for row in cursor.fetchall()]


def _index(cursor: Any, table: _Hypertable) -> Iterator[Finding]:
    """Yield a finding if no index has a series' column and the time, in either direction."""
    cursor.execute(
        """
        SELECT FROM pg_index
        JOIN pg_class ON pg_class.oid = indexrelid
        JOIN pg_am ON pg_am.oid = relam AND amname = 'btree'
        JOIN pg_attribute ON attrelid = indrelid AND attname = %s
        WHERE indrelid = %s::regclass AND indisvalid AND indpred IS NULL
          AND array_position((indkey::int2[])[1:indnkeyatts - 1], attnum) IS NOT NULL  -- from 0; the first differs
        """,
        [table.time, table.name],
    )
    if cursor.fetchall():
        return
    columns = _series_columns(cursor, table)
    if not columns:
        return
    text = f"no index on a series ({' or '.join(columns)}) and its time: a query for one series reads all of them"
    key = f"{_quoted(columns[0])}, {_quoted(table.time)} DESC"
    remedy = f"CREATE INDEX ON {table.name} ({key}) WITH (timescaledb.transaction_per_chunk)"
    yield Finding(table.name, "index", text, remedy if len(columns) == 1 else "")


def _series_columns(cursor: Any, table: _Hypertable) -> list[str]:
    """Return the columns that can identify series, by preference dimensions and foreign keys."""
    cursor.execute(
        """
        SELECT attname,
               CASE WHEN EXISTS (SELECT FROM timescaledb_information.dimensions
                                 WHERE format('%%I.%%I', hypertable_schema, hypertable_name) = %s
                                   AND column_name = attname) THEN 1
                    WHEN EXISTS (SELECT FROM pg_constraint
                                 WHERE conrelid = attrelid AND contype = 'f' AND conkey = ARRAY[attnum]) THEN 2
                    ELSE 3 END
        FROM pg_attribute
        WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attname <> %s
          AND atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype,
                           'text'::regtype, 'varchar'::regtype, 'uuid'::regtype)
        ORDER BY attnum
        """,
        [table.name, table.name, table.time],
    )
    found = cursor.fetchall()
    best = min((rank for _, rank in found), default=0)
    return [name for name, rank in found if rank == best]


def _statistics(cursor: Any, table: _Hypertable) -> Iterator[Finding]:
    """Yield a finding if chunks were never analyzed."""
    cursor.execute(
        """
        SELECT count(*) FROM pg_inherits
        JOIN pg_class ON pg_class.oid = inhrelid
        JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE inhparent = %s::regclass AND pg_relation_size(pg_class.oid) > 0
          AND NOT EXISTS (SELECT FROM pg_stats WHERE schemaname = nspname AND tablename = relname)
        """,
        [table.name],
    )
    ((count,),) = cursor.fetchall()
    if count:
        text = f"{count} of {table.chunk_count} chunks were never analyzed: the planner has no statistics on them"
        yield Finding(table.name, "statistics", text, f"ANALYZE {table.name}")


def _chunk_interval(cursor: Any, table: _Hypertable) -> Iterator[Finding]:
    """Yield a finding if the current interval makes chunks too large for memory, or too many of them."""
    if table.interval_h is None or table.chunk_count == 0:
        return
    cursor.execute(
        """
        WITH chunk AS (
            SELECT format('%%I.%%I', chunk_schema, chunk_name)::regclass AS id, range_start, range_end,
                   extract(epoch FROM range_end - range_start)::float8 / 3600 AS hours
            FROM timescaledb_information.chunks
            WHERE format('%%I.%%I', hypertable_schema, hypertable_name) = %s
        )
        SELECT (SELECT max(pg_total_relation_size(id) / hours)
                FROM (SELECT * FROM chunk ORDER BY range_end DESC LIMIT %s) AS newest),
               extract(epoch FROM max(range_end) - min(range_start))::float8 / 3600,
               pg_size_bytes(current_setting('shared_buffers'))
        FROM chunk
        """,
        [table.name, NEWEST_CHUNKS],
    )
    ((bytes_per_h, span_h, buffer_bytes),) = cursor.fetchall()
    size_bytes, room_bytes = bytes_per_h * table.interval_h, buffer_bytes * MEMORY_SHARE
    # Chunks of an earlier interval are not counted, or each call would change the interval again.
    count = min(table.chunk_count, span_h / table.interval_h)
    fitting = [hours for hours in INTERVALS_H if bytes_per_h * hours <= room_bytes]
    sizes = f"one chunk takes {_megabytes(size_bytes)}, a quarter of shared_buffers is {_megabytes(room_bytes)}"
    if size_bytes > room_bytes:
        text = f"chunks of {table.interval_h:g} h are too large: {sizes}"
        hours = [one for one in fitting if one < table.interval_h][-1:]
    elif count > CHUNKS_MANY:
        text = (
            f"{table.chunk_count} chunks of {table.interval_h:g} h (more than {CHUNKS_MANY}): "
            f"a query without a time range plans each of them; {sizes}"
        )
        longer = [one for one in fitting if one > table.interval_h]
        hours = [one for one in longer if one >= span_h / CHUNKS_WANTED][:1] or longer[-1:]
    else:
        return
    if hours:
        yield Finding(table.name, "chunk_interval", text, _set_interval(table.name, hours[0]))


def _set_interval(table: str, hours: int) -> str:
    name = table.replace("'", "''")
    return f"SELECT set_chunk_time_interval('{name}', INTERVAL '{hours} hours')"


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _megabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"


def _apply(alias: str, findings: list[Finding], apply: Collection[Kind]) -> list[Finding]:
    with _own_cursor(alias) as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtext('poolhouse.helpers.hypertables'))")
        is_alone = cursor.fetchall() == [(True,)]
        return [
            replace(
                finding, outcome=_remedy(alias, cursor, finding) if is_alone else "another process is applying findings"
            )
            if finding.kind in apply and finding.remedy
            else finding
            for finding in findings
        ]


def _remedy(alias: str, cursor: Cursor, finding: Finding) -> str:
    try:
        cursor.execute(finding.remedy)
    except driver_errors(alias) as error:
        return one_line(error)
    return "applied"


@contextmanager
def _own_cursor(alias: str) -> Iterator[Cursor]:
    """Yield a cursor of a connection outside every pool, for long statements that do not wait long for locks."""
    params = {
        **own_connection_params(alias, directly=True),
        "options": f"-c lock_timeout={LOCK_TIMEOUT_MS} -c statement_timeout=0",
    }
    with closing(driver(alias).connect(**params)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
