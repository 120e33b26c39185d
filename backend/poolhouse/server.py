"""What the database server says: one question a function, its SQL beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from django.db import connections

from poolhouse.conf import options
from poolhouse.driver import driver
from poolhouse.identity import current


class Cursor(Protocol):
    """The part of the DB-API that the questions need; psycopg 2 and 3 both have it."""

    def execute(self, query: str, /) -> Any:
        """Run a statement."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Give all its rows."""


@dataclass(frozen=True)
class Capacity:
    """How many connections the server can take."""

    version: str
    max_connections: int
    reserved: int
    """kept for superusers and for roles that may use reserved connections"""
    used: int

    @property
    def room_left(self) -> int:
        """How many more ordinary roles can open."""
        return max(0, self.max_connections - self.reserved - self.used)


@dataclass(frozen=True)
class ServerConnection:
    """One client connection, as pg_stat_activity has it. Ages in seconds."""

    pid: int
    application: str
    user: str
    database: str
    client: str
    state: str
    age_s: float
    state_age_s: float


@contextmanager
def monitor_cursor(alias: str) -> Iterator[Cursor]:
    """Open the monitor's own connection, outside every pool, with short timeouts, and close it.

    Raises:
        the driver's Error: the server cannot be reached or has no room.

    """
    wrapper = connections.create_connection(alias)
    timeout_s = options().MONITOR_TIMEOUT_S
    params = {
        **wrapper.get_connection_params(),
        "application_name": current("monitor").name,
        "connect_timeout": timeout_s,
        "options": f"-c statement_timeout={timeout_s * 1000}",
    }
    params.pop("pool", None)
    connection = driver(alias).connect(**params)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def capacity(cursor: Cursor) -> Capacity:
    """How many connections may there be, how many are there, the monitor's own aside?"""
    cursor.execute(
        """
        SELECT current_setting('server_version'),
               current_setting('max_connections')::int,
               current_setting('superuser_reserved_connections')::int
                   + coalesce(current_setting('reserved_connections', true)::int, 0),
               (SELECT count(*) FROM pg_stat_activity
                WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())
        """
    )
    (row,) = cursor.fetchall()
    return Capacity(*row)


def client_connections(cursor: Cursor) -> list[ServerConnection]:
    """Which connections are open, and whose are they?"""
    cursor.execute(
        """
        SELECT pid, coalesce(application_name, ''), coalesce(usename, ''), coalesce(datname, ''),
               coalesce(host(client_addr), 'socket'), coalesce(state, 'unknown'),
               extract(epoch FROM clock_timestamp() - backend_start)::float8,
               coalesce(extract(epoch FROM clock_timestamp() - state_change), 0)::float8
        FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
        ORDER BY application_name, pid
        """
    )
    return [ServerConnection(*row) for row in cursor.fetchall()]
