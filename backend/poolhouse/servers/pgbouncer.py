"""What PgBouncer says of itself: one SHOW a function. Its columns are those of version 1.18 and later."""

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

# The database that is PgBouncer's own; whoever looks is a client of it, and no part of what there is to see.
CONSOLE = "pgbouncer"
POSTGRESQL_PORT, PGBOUNCER_PORT = 5432, 6432
THIS_MACHINE = ("", "localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class PgBouncerPool:
    """One pool: a database and a user. Every number but the last counts connections."""

    database: str
    user: str
    mode: str
    """session, transaction or statement"""
    clients_active: int
    """linked to a server connection, or with nothing to ask"""
    clients_waiting: int
    servers_active: int
    servers_idle: int
    """ready for the next client, those included that PgBouncer tests first"""
    servers_in_login: int
    longest_wait_s: float
    """of the client that waits now and has waited longest"""


@dataclass(frozen=True)
class PgBouncerStats:
    """One database: totals since PgBouncer started, rates and means over its last stats_period."""

    database: str
    transactions: int
    queries: int
    received_bytes: int
    sent_bytes: int
    wait_s: float
    """that clients waited for a server connection, all together"""
    transactions_per_s: int
    queries_per_s: int
    mean_transaction_ms: float
    mean_query_ms: float
    mean_wait_ms: float


@dataclass(frozen=True)
class PgBouncerServer:
    """A connection of PgBouncer's to a database server."""

    database: str
    user: str
    application: str
    """of the client that it serves, or served last"""
    state: str
    local_port: int | None
    """None on a socket"""
    remote_pid: int
    """of the server's process"""


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
    """How many connections to the server PgBouncer opens for a database."""

    size: int
    """for each role"""
    reserve: int
    """above that, for clients that have waited"""
    bound: int
    """above all, for the database or for each role; 0: none"""

    @property
    def most(self) -> int:
        """For one role."""
        most = self.size + self.reserve
        return min(most, self.bound) if self.bound else most


@dataclass(frozen=True)
class PgBouncer:
    """The answers of one look."""

    version: str
    pools: list[PgBouncerPool]
    stats: list[PgBouncerStats]
    servers: list[PgBouncerServer]
    clients: list[PgBouncerClient]

    def holds(self, connection: ServerConnection) -> bool:
        """Say whether a connection on the server is PgBouncer's.

        Pid and port must both agree: of several servers behind one PgBouncer, two may have the same pid.
        """
        return (connection.pid, connection.client_port) in self._backends

    @cached_property
    def _backends(self) -> set[tuple[int, int | None]]:
        return {(server.remote_pid, server.local_port) for server in self.servers}


@contextmanager
def console_cursor(alias: str) -> Iterator[Cursor]:
    """Open PgBouncer's console with the driver of a database alias, and close it.

    Raises:
        the driver's Error: PgBouncer cannot be reached, or does not answer in time.

    """
    chosen = options()
    name = current("monitor").name
    with bounded_cursor(driver(alias), chosen.MONITOR_TIMEOUT_S, chosen.PGBOUNCER_URL, application_name=name) as cursor:
        yield cursor


def ask(cursor: Cursor) -> PgBouncer:
    """Take one look."""
    return PgBouncer(version(cursor), pools(cursor), stats(cursor), servers(cursor), clients(cursor))


def version(cursor: Cursor) -> str:
    """Which PgBouncer is it?"""
    ((text,),) = (row.values() for row in _show(cursor, "VERSION"))
    return str(text).removeprefix("PgBouncer ")


def pools(cursor: Cursor) -> list[PgBouncerPool]:
    """How many clients and servers has each pool, and how long do clients wait?"""
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
    """How much goes through each database, and how long does it take?"""
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
    """Which connections does it hold on the database server?"""
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
    """Who is connected to it, and who waits?"""
    return [
        PgBouncerClient(
            database=row["database"],
            user=row["user"],
            application=row["application_name"] or "",
            address=row["addr"],
            port=row["port"],
            state=row["state"],
            # Of a client that does not wait the columns are about its last request.
            wait_s=row["wait"] + row["wait_us"] / 1e6 if row["state"] == "waiting" else 0.0,
        )
        for row in _show(cursor, "CLIENTS")
    ]


def database_pool(cursor: Cursor, name: str) -> DatabasePool | None:
    """How many connections may it open for a database? None: it knows it not, or only as *."""
    for row in _show(cursor, "DATABASES"):
        if row["name"] == name:
            reserve = row.get("reserve_pool_size", row.get("reserve_pool", 0))  # the latter before 1.24
            bounds = [row.get("max_connections") or 0, int(setting(cursor, "max_user_connections"))]
            return DatabasePool(row["pool_size"], reserve or 0, min((bound for bound in bounds if bound), default=0))
    return None


def pool_mode(cursor: Cursor, database: str, user: str) -> str:
    """Which pool_mode has a database for a user? The user's goes before the database's, and that before all others'."""
    for what, name in (("USERS", user), ("DATABASES", database)):
        modes = [row["pool_mode"] for row in _show(cursor, what) if row["name"] == name and row["pool_mode"]]
        if modes:
            return str(modes[0])
    return setting(cursor, "pool_mode")


def setting(cursor: Cursor, name: str) -> str:
    """What does its configuration say?"""
    (value,) = (row["value"] for row in _show(cursor, "CONFIG") if row["key"] == name)
    return str(value)


def _show(cursor: Cursor, what: str) -> list[dict[str, Any]]:
    cursor.execute(f"SHOW {what}")
    names = [column[0] for column in cursor.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return [row for row in rows if row.get("database") != CONSOLE]


def goes_through(database: dict[str, Any]) -> bool:
    """Return True if an alias, by its settings, leads to the PgBouncer of POOLHOUSE["PGBOUNCER_URL"]."""
    if not (url := options().PGBOUNCER_URL):
        return False
    pooler = urlsplit(url)
    return any(
        (host == pooler.hostname or {host, pooler.hostname} <= set(THIS_MACHINE))
        and port == str(pooler.port or PGBOUNCER_PORT)
        for host, port in _addresses(database)
    )


def _addresses(database: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Return the addresses that libpq tries one after the other: hosts, with a port each or one for all."""
    hosts = str(database.get("HOST") or "").split(",")
    ports = str(database.get("PORT") or POSTGRESQL_PORT).split(",")
    return zip(hosts, ports if len(ports) > 1 else ports * len(hosts), strict=False)
