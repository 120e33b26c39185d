"""The state of a database server: one question per function, with its SQL.

A query of everything takes four round trips, and two more in detail; what follows from an answer is not queried again.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from poolhouse.conf import options
from poolhouse.driver import driver, driver_errors, own_connection_params
from poolhouse.formatting import one_line
from poolhouse.servers.bounded import Cursor, bounded_cursor

# A lock that the monitor would have to wait for is a finding, and not worth waiting for.
LOCK_TIMEOUT_MS = 500
HIDDEN = "hidden"
# PgBouncer's error for startup options that its ignore_startup_parameters does not list.
NO_OPTIONS = "unsupported startup parameter"

T = TypeVar("T")


@dataclass(frozen=True)
class Capacity:
    """The server's version and connection limits."""

    version: str
    max_connections: int
    superuser_reserved: int
    """reserved for superusers"""
    reserved: int
    """reserved for roles with pg_use_reserved_connections"""
    started_at: float = 0.0
    """seconds since the epoch; equal in two answers of the same server"""
    through_pooler: bool = False
    """whether the connection goes through PgBouncer or another pooler"""

    @property
    def usable(self) -> int:
        """The connections that ordinary roles can have."""
        return self.max_connections - self.superuser_reserved - self.reserved


@dataclass(frozen=True)
class Limit:
    """The CONNECTION LIMIT of a role or of a database."""

    kind: str
    """role or database"""
    name: str
    connections: int


@dataclass(frozen=True)
class ServerConnection:
    """A client connection in pg_stat_activity. Ages are in seconds; None: hidden from the monitor."""

    pid: int
    application: str
    user: str
    database: str
    client: str
    client_port: int | None
    """None on a socket"""
    state: str
    """"hidden" if the monitor's role may not see it"""
    wait: str
    """what the session waits for, its kind first, as in Lock: transactionid; empty: it is running"""
    age_s: float | None
    state_age_s: float | None
    transaction_age_s: float | None
    """None outside a transaction"""

    @property
    def is_idle_in_transaction(self) -> bool:
        """Whether it has an open transaction, and its locks, while its client sends no statement."""
        return self.state.startswith("idle in transaction")


@dataclass(frozen=True)
class Block:
    """A session that waits for a lock, and one that blocks it."""

    pid: int
    lock: str
    """the kind of lock: relation, transactionid, tuple, advisory, …"""
    wait_s: float
    blocker_pid: int
    """0: a prepared transaction"""
    blocker: str
    """its application_name, or its kind if it has none: autovacuum worker, prepared transaction"""


@dataclass(frozen=True)
class Hypertable:
    """A hypertable of TimescaleDB with its size."""

    name: str
    chunk_count: int
    size_bytes: int
    """of all chunks, with indexes"""


@dataclass(frozen=True)
class TimescaleDB:
    """The TimescaleDB extension of a database."""

    version: str
    edition: str
    """apache, or timescale (Community)"""
    hypertables: list[Hypertable]


class Group(NamedTuple):
    """Connections with the same application, user, client and state."""

    application: str
    user: str
    client: str
    state: str


@dataclass(frozen=True)
class ServerFacts:
    """The answers of one query of a server."""

    capacity: Capacity
    connections: list[ServerConnection]
    """without the monitor's own"""
    blocks: list[Block]
    limits: list[Limit] = field(default_factory=list)
    """of the application's roles and databases"""

    @property
    def used(self) -> int:
        """The number of open connections."""
        return len(self.connections)

    @property
    def room_left(self) -> int:
        """The connections that the application can still open within the limits of server, role and database."""
        rooms = [limit.connections - self.used_of(limit) for limit in self.limits]
        return max(0, min([self.capacity.usable - self.used, *rooms]))

    def used_of(self, limit: Limit) -> int:
        """Return the number of connections that count against a limit."""
        return sum(limit.name == (one.user if limit.kind == "role" else one.database) for one in self.connections)

    @property
    def groups(self) -> Counter[Group]:
        """Count the connections by application, user, client and state."""
        return Counter(Group(one.application, one.user, one.client, one.state) for one in self.connections)

    @property
    def idle_in_transaction(self) -> list[ServerConnection]:
        """Return the connections that are idle in a transaction, the longest first."""
        idle = [one for one in self.connections if one.is_idle_in_transaction]
        return sorted(idle, key=lambda one: one.state_age_s or 0, reverse=True)

    @property
    def longest_transaction(self) -> ServerConnection | None:
        """Return the connection with the oldest transaction, or None."""
        within = [one for one in self.connections if one.transaction_age_s is not None]
        return max(within, key=lambda one: one.transaction_age_s or 0, default=None)


def ask_as_monitor(alias: str, ask: Callable[[Cursor], T]) -> tuple[T, str]:
    """Query as the monitor's role or, if that is refused without delay, as the application's.

    Returns:
        The answer, and why the monitor's role was refused; empty if it was not.

    Raises:
        the driver's Error: both roles failed; the text has both reasons.
    """
    chosen, begun_at = options(), time.monotonic()
    refusal = ""
    if chosen.MONITOR_USER:
        try:
            with monitor_cursor(alias, chosen.MONITOR_USER, chosen.MONITOR_PASSWORD) as cursor:
                return ask(cursor), ""
        except driver_errors(alias) as error:
            if time.monotonic() - begun_at > chosen.MONITOR_TIMEOUT_S / 2:
                raise  # a server that does not answer is not tried a second time
            refusal = one_line(error)
    try:
        with monitor_cursor(alias) as cursor:
            return ask(cursor), refusal
    except driver_errors(alias) as error:
        if not refusal:
            raise
        reason = one_line(error)
        raise driver(alias).OperationalError(f"{reason}; as {chosen.MONITOR_USER}: {refusal}") from error


@contextmanager
def monitor_cursor(alias: str, user: str = "", password: str = "") -> Iterator[Cursor]:
    """Open the monitor's own connection, outside every pool and past PgBouncer, with short timeouts, and close it.

    Args:
        alias: of the database to ask.
        user: the role; empty: the alias' own, which can connect as long as the application can.
        password: of the role.

    Raises:
        the driver's Error: the server cannot be reached, has no room, or does not answer in time.
    """
    timeout_s, module = options().MONITOR_TIMEOUT_S, driver(alias)
    bounds = {"statement_timeout": int(timeout_s * 1000), "lock_timeout": LOCK_TIMEOUT_MS}
    params = own_connection_params(alias, directly=True)
    if user:
        params |= {"user": user, "password": password}
    params["options"] = " ".join(f"-c {name}={value_ms}" for name, value_ms in bounds.items())
    with ExitStack() as opened:
        try:
            cursor = opened.enter_context(bounded_cursor(module, timeout_s, **params))
        except module.OperationalError as error:
            if NO_OPTIONS not in str(error):
                raise
            del params["options"]
            cursor = opened.enter_context(bounded_cursor(module, timeout_s, **params))
            opened.enter_context(_transaction_within(cursor, bounds))
        yield cursor


@contextmanager
def _transaction_within(cursor: Cursor, bounds: dict[str, int]) -> Iterator[None]:
    """Query within a transaction that sets these timeouts: behind PgBouncer, a session's would affect others."""
    cursor.execute("BEGIN READ ONLY")
    for name, value_ms in bounds.items():
        cursor.execute(f"SET LOCAL {name} = {value_ms}")
    yield
    cursor.execute("ROLLBACK")


def ask(cursor: Cursor, users: Collection[str] = (), databases: Collection[str] = ()) -> ServerFacts:
    """Query everything that the status shows.

    Args:
        cursor: of the monitor's connection.
        users: the roles whose limits are returned.
        databases: the databases whose limits are returned.
    """
    whose = {("role", user) for user in users} | {("database", database) for database in databases}
    return ServerFacts(
        capacity(cursor),
        client_connections(cursor),
        blocks(cursor),
        [limit for limit in limits(cursor) if (limit.kind, limit.name) in whose],
    )


def capacity(cursor: Cursor) -> Capacity:
    """Return the version, the connection limits and who they are reserved for.

    A pooler gives its clients a pid that is not the server process's.
    """
    cursor.execute(
        """
        SELECT current_setting('server_version'),
               current_setting('max_connections')::int,
               current_setting('superuser_reserved_connections')::int,
               coalesce(current_setting('reserved_connections', true)::int, 0),  -- since PostgreSQL 16
               extract(epoch FROM pg_postmaster_start_time())::float8,
               pg_backend_pid()
        """
    )
    ((version, most, superuser_reserved, reserved, started_at, pid),) = cursor.fetchall()
    is_through = pid != cursor.connection.info.backend_pid
    return Capacity(version, most, superuser_reserved, reserved, started_at, is_through)


def limits(cursor: Cursor) -> list[Limit]:
    """Return the roles and databases with a CONNECTION LIMIT; it does not apply to superusers."""
    cursor.execute(
        """
        SELECT 'role', rolname, rolconnlimit FROM pg_roles WHERE rolconnlimit >= 0 AND NOT rolsuper
        UNION ALL
        SELECT 'database', datname, datconnlimit FROM pg_database WHERE datconnlimit >= 0
        ORDER BY 1, 2
        """
    )
    return [Limit(*row) for row in cursor.fetchall()]


def client_connections(cursor: Cursor) -> list[ServerConnection]:
    """Return the client connections: whose they are, their ages and what they wait for.

    Of other roles' connections a role without pg_monitor sees only pid, application, user and database. The server's
    own workers then look like clients except for their names; they do not count against max_connections.
    """
    cursor.execute(
        """
        SELECT pid, coalesce(application_name, ''), coalesce(usename, ''), coalesce(datname, ''),
               coalesce(host(client_addr), CASE WHEN backend_type IS NULL THEN '' ELSE 'socket' END),
               nullif(client_port, -1),
               CASE WHEN backend_type IS NULL THEN 'hidden' ELSE coalesce(state, 'unknown') END,
               coalesce(wait_event_type || ': ' || wait_event, ''),
               extract(epoch FROM clock_timestamp() - backend_start)::float8,
               extract(epoch FROM clock_timestamp() - state_change)::float8,
               extract(epoch FROM clock_timestamp() - xact_start)::float8
        FROM pg_stat_activity
        WHERE pid <> pg_backend_pid()
          AND (backend_type = 'client backend'
               OR backend_type IS NULL AND usesysid IS NOT NULL AND datid IS NOT NULL  -- hidden: what else has both
               AND application_name NOT LIKE 'TimescaleDB Background Worker%'
               AND application_name NOT LIKE 'logical replication%')
        ORDER BY application_name, pid
        """
    )
    return [ServerConnection(*row) for row in cursor.fetchall()]


def blocks(cursor: Cursor) -> list[Block]:
    """Return which sessions are blocked by which, the longest wait first."""
    cursor.execute(
        """
        SELECT waiting.pid, waiting.locktype,
               coalesce(extract(epoch FROM clock_timestamp() - waiting.waitstart), 0)::float8,
               blocking.pid,
               coalesce(nullif(blocker.application_name, ''), blocker.backend_type,
                        CASE blocking.pid WHEN 0 THEN 'prepared transaction' ELSE '' END)
        FROM pg_locks AS waiting
        CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocking (pid)
        LEFT JOIN pg_stat_activity AS blocker ON blocker.pid = blocking.pid
        WHERE NOT waiting.granted
        GROUP BY 1, 2, 3, 4, 5  -- parallel workers make one blocker several
        ORDER BY 3 DESC, 1, 4
        """
    )
    return [Block(*row) for row in cursor.fetchall()]


def timescaledb(cursor: Cursor) -> TimescaleDB | None:
    """Return the edition of TimescaleDB and the sizes of its hypertables, or None if it is not installed.

    It opens every chunk: a third of a second for a thousand of them.
    """
    cursor.execute(
        """
        SELECT extversion, coalesce(current_setting('timescaledb.license', true), 'unknown')
        FROM pg_extension WHERE extname = 'timescaledb'
        """
    )
    found = cursor.fetchall()
    if not found:
        return None
    cursor.execute(
        """
        SELECT hypertable_schema || '.' || hypertable_name, num_chunks, coalesce(hypertable_size(pg_class.oid), 0)
        FROM timescaledb_information.hypertables
        -- By name, ::regclass would ask for rights on the schema.
        JOIN pg_namespace ON nspname = hypertable_schema
        JOIN pg_class ON relname = hypertable_name AND relnamespace = pg_namespace.oid
        ORDER BY 1
        """
    )
    ((version, edition),) = found
    return TimescaleDB(version, edition, [Hypertable(*row) for row in cursor.fetchall()])
