"""A connection of the pool with the facts that the pool needs."""

import time
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from poolhouse.engines import session, sockets
from poolhouse.engines.permits import Permit

Identity = tuple[Any, ...]

# What a connection is connected to, as whom, and its session's start, by libpq's names. Without the password: when it
# changes, open sessions remain valid, and closing all of them at once would flood the server.
_IDENTIFYING = ("dbname", "user", "host", "hostaddr", "port", "service", "options", "replication")

# Attributes that can be set on a connection and stay: psycopg2's and psycopg 3's. Autocommit comes first, since
# psycopg2 hides others behind it.
_SET_ON_PSYCOPG2 = ("autocommit", "isolation_level", "readonly", "deferrable", "cursor_factory")
_SET_ON_PSYCOPG3 = (
    "autocommit",
    "isolation_level",
    "read_only",
    "deferrable",
    "cursor_factory",
    "server_cursor_factory",
    "row_factory",
    "prepare_threshold",
    "prepared_max",
)


def identity_of(conn_params: dict[str, Any]) -> Identity:
    """Return what two connections that are interchangeable have in common."""
    return tuple(map(conn_params.get, _IDENTIFYING))


class Slot:
    """An open connection. Times are perf_counter's, in seconds."""

    __slots__ = (
        "__weakref__",
        "_is_psycopg2",
        "_note_loss",
        "_pristine",
        "_word",
        "connection",
        "generation",
        "identity",
        "is_closed",
        "opened_at",
        "permit",
        "record",
        "returned_at",
    )

    def __init__(
        self, permit: Permit, record: Any, identity: Identity, generation: int, note_loss: Callable[["Slot"], None]
    ) -> None:
        """Record the facts of a connection that has just been opened.

        Args:
            permit: the permit to have it open.
            record: SQLAlchemy's record of it, whose listeners are called.
            identity: what it is connected to.
            generation: of the pool; connections of an earlier one are not checked out again.
            note_loss: called with the slot if it is no longer referenced but not closed: an exception was raised
                during a hand-over.
        """
        self.is_closed = True  # until the slot is complete
        self._note_loss = note_loss
        self.permit, self.record, self.identity, self.generation = permit, record, identity, generation
        self.connection: Any = record.dbapi_connection
        self.opened_at = self.returned_at = time.perf_counter()
        self._is_psycopg2 = hasattr(self.connection, "notices")
        self._word = sockets.arrival_probe(self.connection)
        names = _SET_ON_PSYCOPG2 if self._is_psycopg2 else _SET_ON_PSYCOPG3
        self._pristine = dict(zip(names, attrgetter(*names)(self.connection), strict=True))
        self.is_closed = False

    def __del__(self) -> None:
        if not self.is_closed:
            self._note_loss(self)

    def has_arrival(self) -> bool:
        """Return True if an idle connection has unread data or was closed by the server; it takes a microsecond.

        A server that restarts, fails over or ends a session closes the connection at once; one behind a broken network
        does not.
        """
        return self._word() != 0

    def is_idle(self) -> bool:
        """Return True if no statement and no transaction is in progress and no notification could be left over."""
        connection = self.connection
        if connection.closed:
            return False
        if self._is_psycopg2:
            if connection.notices or connection.notifies:
                connection.notices.clear()
                connection.notifies.clear()
            return bool(connection.get_transaction_status() == session.IDLE)
        return bool(connection.pgconn.transaction_status == session.IDLE)

    @property
    def can_be_cleaned(self) -> bool:
        """Return True if the driver accepts commands: in the middle of a result it would wait for the end."""
        connection = self.connection
        if connection.closed or connection.info.transaction_status == session.ACTIVE:
            return False
        # A generator of psycopg 3 that was not exhausted keeps the lock for as long as it is referenced.
        return self._is_psycopg2 or not (connection.lock.locked() or connection.pgconn.pipeline_status)

    @staticmethod
    def close_cursors(cursors: tuple[Any, ...]) -> None:
        """Close the cursors that the holder has left open, here and on the server."""
        for cursor in cursors:
            if not cursor.closed:
                cursor.close()

    def restore(self) -> None:
        """Restore the driver's attributes; no transaction may be open."""
        for name, value in self._pristine.items():
            if getattr(self.connection, name) != value:
                setattr(self.connection, name, value)
        if not self._is_psycopg2:
            for _ in self.connection.notifies(timeout=0):
                pass
