"""The state of PgBouncer: one SHOW command per function, with the columns of version 1.18 and later."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from poolhouse.conf import options
from poolhouse.driver import driver
from poolhouse.identity import current
from poolhouse.servers.bounded import Cursor, bounded_cursor
from poolhouse.servers.server import ServerConnection

# PgBouncer's admin database; the monitor is a client of it and is left out.
CONSOLE = "pgbouncer"
POSTGRESQL_PORT, PGBOUNCER_PORT = 5432, 6432
THIS_MACHINE = ("", "localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class PgBouncerPool:
    """A pool: a database and a user. All numbers but the last count connections."""

    database: str
    user: str
    mode: str
    """session, transaction or statement"""
    clients_active: int
    """linked to a server connection, or idle"""
    clients_waiting: int
    servers_active: int
    servers_idle: int
    """ready for the next client, including those that PgBouncer tests first"""
    servers_in_login: int
    longest_wait_s: float
    """the wait so far of the client that has been waiting longest"""


@dataclass(frozen=True)
class PgBouncerStats:
    """A database: totals since PgBouncer started, rates and means over its last stats_period."""

    database: str
    transactions: int
    queries: int
    received_bytes: int
    sent_bytes: int
    wait_s: float
    """the wait times for server connections, added up"""
    transactions_per_s: int
    queries_per_s: int
    mean_transaction_ms: float
    mean_query_ms: float
    mean_wait_ms: float


@dataclass(frozen=True)
class PgBouncerServer:
    """A connection from PgBouncer to a database server."""

    database: str
    user: str
    application: str
    """of its current or last client"""
    state: str
    local_port: int | None
    """None on a socket"""
    remote_pid: int
    """of the server process"""


@dataclass(frozen=True)
class PgBouncerClient:
    """A client's connection to PgBouncer."""

    database: str
    user: str
    application: str
    address: str
    port: int
    state: str
    wait_s: float
    """for a server connection, so far"""


@dataclass(frozen=True)
class DatabasePool:
    """The most server connections that PgBouncer opens for a database."""

    size: int
    """per role"""
    reserve: int
    """above size, for clients that have waited"""
    bound: int
    """over all roles, or per role; 0: no limit"""

    @property
    def most(self) -> int:
        """The most server connections for one role."""
        most = self.size + self.reserve
        return min(most, self.bound) if self.bound else most


@dataclass(frozen=True)
class PgBouncer:
    """The answers of one query of PgBouncer."""

    version: str
    pools: list[PgBouncerPool]
    stats: list[PgBouncerStats]
    servers: list[PgBouncerServer]
    clients: list[PgBouncerClient]

    def holds(self, connection: ServerConnection) -> bool:
        """Return True if a connection on the server is PgBouncer's.

        Both pid and port must match: with several servers behind one PgBouncer, two connections may have the same pid.
        """
        return (connection.pid, connection.client_port) in self._backends

    @cached_property
    def _backends(self) -> set[tuple[int, int | None]]:
        return {(server.remote_pid, server.local_port) for server in self.servers}


@contextmanager
def console_cursor(alias: str) -> Iterator[Cursor]:
    """Open PgBouncer's console with the driver of an alias, and close it.

    Raises:
        the driver's Error: PgBouncer cannot be reached, or does not answer in time.
    """
    chosen = options()
    name = current("monitor").name
    with bounded_cursor(driver(alias), chosen.MONITOR_TIMEOUT_S, chosen.PGBOUNCER_URL, application_name=name) as cursor:
        yield cursor


def ask(cursor: Cursor) -> PgBouncer:
    """Query everything that the status shows."""
    return PgBouncer(version(cursor), pools(cursor), stats(cursor), servers(cursor), clients(cursor))


def version(cursor: Cursor) -> str:
    """Return the version in SHOW VERSION."""
    ((text,),) = (row.values() for row in _show(cursor, "VERSION"))
    return str(text).removeprefix("PgBouncer ")


def pools(cursor: Cursor) -> list[PgBouncerPool]:
    """Return the pools with their clients, servers and waits."""
    return [
        PgBouncerPool(
            database=row["database"],
            user=row["user"],
            mode=row["pool_mode"],
            clients_active=row["cl_active"],
            clients_waiting=row["cl_waiting"],
            servers_active=row["sv_active"],
            servers_idle=row["sv_idle"] + row["sv_used"] + row["sv_tested"],
            servers_in_login=row["sv_login"],
            longest_wait_s=row["maxwait"] + row["maxwait_us"] / 1e6,
        )
        for row in _show(cursor, "POOLS")
    ]


def stats(cursor: Cursor) -> list[PgBouncerStats]:
    """Return the traffic of each database."""
    return [
        PgBouncerStats(
            database=row["database"],
            transactions=int(row["total_xact_count"]),
            queries=int(row["total_query_count"]),
            received_bytes=int(row["total_received"]),
            sent_bytes=int(row["total_sent"]),
            wait_s=int(row["total_wait_time"]) / 1e6,
            transactions_per_s=int(row["avg_xact_count"]),
            queries_per_s=int(row["avg_query_count"]),
            mean_transaction_ms=int(row["avg_xact_time"]) / 1e3,
            mean_query_ms=int(row["avg_query_time"]) / 1e3,
            mean_wait_ms=int(row["avg_wait_time"]) / 1e3,
        )
        for row in _show(cursor, "STATS")
    ]


def servers(cursor: Cursor) -> list[PgBouncerServer]:
    """Return the connections to database servers."""
    return [
        PgBouncerServer(
            database=row["database"],
            user=row["user"],
            application=row["application_name"] or "",
            state=row["state"],
            local_port=None if row["addr"] == "unix" else row["local_port"],
            remote_pid=row["remote_pid"],
        )
        for row in _show(cursor, "SERVERS")
    ]


def clients(cursor: Cursor) -> list[PgBouncerClient]:
    """Return the clients and their states."""
    return [
        PgBouncerClient(
            database=row["database"],
            user=row["user"],
            application=row["application_name"] or "",
            address=row["addr"],
            port=row["port"],
            state=row["state"],
            # For a client that does not wait, these columns describe its last request.
            wait_s=row["wait"] + row["wait_us"] / 1e6 if row["state"] == "waiting" else 0.0,
        )
        for row in _show(cursor, "CLIENTS")
    ]


def database_pool(cursor: Cursor, name: str) -> DatabasePool | None:
    """Return the pool size of a database, or None if PgBouncer does not list it, or only as *."""
    for row in _show(cursor, "DATABASES"):
        if row["name"] == name:
            reserve = row.get("reserve_pool_size", row.get("reserve_pool", 0))  # the latter name before 1.24
            bounds = [row.get("max_connections") or 0, int(setting(cursor, "max_user_connections"))]
            return DatabasePool(row["pool_size"], reserve or 0, min((bound for bound in bounds if bound), default=0))
    return None


def pool_mode(cursor: Cursor, database: str, user: str) -> str:
    """Return the pool_mode of a user in a database: the user's setting comes before the database's and the default."""
    for what, name in (("USERS", user), ("DATABASES", database)):
        modes = [row["pool_mode"] for row in _show(cursor, what) if row["name"] == name and row["pool_mode"]]
        if modes:
            return str(modes[0])
    return setting(cursor, "pool_mode")


def setting(cursor: Cursor, name: str) -> str:
    """Return a setting of PgBouncer's configuration by name."""
    (value,) = (row["value"] for row in _show(cursor, "CONFIG") if row["key"] == name)
    return str(value)


def _show(cursor: Cursor, what: str) -> list[dict[str, Any]]:
    cursor.execute(f"SHOW {what}")
    names = [column[0] for column in cursor.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return [row for row in rows if row.get("database") != CONSOLE]


def goes_through(database: dict[str, Any]) -> bool:
    """Return True if an alias, by its settings, connects to the PgBouncer of POOLHOUSE["PGBOUNCER_URL"]."""
    if not (url := options().PGBOUNCER_URL):
        return False
    pooler = urlsplit(url)
    return any(
        (host == pooler.hostname or {host, pooler.hostname} <= set(THIS_MACHINE))
        and port == str(pooler.port or PGBOUNCER_PORT)
        for host, port in _addresses(database)
    )


def _addresses(database: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Return the addresses that libpq tries in order: hosts, with a port each or one for all."""
    hosts = str(database.get("HOST") or "").split(",")
    ports = str(database.get("PORT") or POSTGRESQL_PORT).split(",")
    return zip(hosts, ports if len(ports) > 1 else ports * len(hosts), strict=False)
