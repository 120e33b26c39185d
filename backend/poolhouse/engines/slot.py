"""A connection of the pool's own, and what the pool has to know of it."""

import time
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from poolhouse.engines import session, sockets
from poolhouse.engines.permits import Permit

Identity = tuple[Any, ...]

# Where a connection leads to, as whom, and how its session begins: libpq's names. Not the password: when it is
# changed, sessions that are open remain good, and to close them all at once would be a storm on the server.
_IDENTIFYING = ("dbname", "user", "host", "hostaddr", "port", "service", "options", "replication")

# What can be set on a connection, and stays: of psycopg2, and of psycopg 3. Autocommit comes first, since psycopg2
# hides others behind it.
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
    """Give what two connections have in common that can stand for each other."""
    return tuple(map(conn_params.get, _IDENTIFYING))


class Slot:
    """An open connection. Times are those of perf_counter, in seconds."""

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
        """Look at a connection that has just been opened.

        Args:
            permit: to have it open.
            record: SQLAlchemy's, which tells its listeners of it.
            identity: what it was opened for.
            generation: of the pool's connections; those of an earlier one are not lent again.
            note_loss: gets the slot if nobody refers to it any more, though it is not closed: an exception was raised
                in just the moment when it went from hand to hand.
        """
        self.is_closed = True  # as long as it is not whole
        self._note_loss = note_loss
        self.permit, self.record, self.identity, self.generation = permit, record, identity, generation
        self.connection: Any = record.dbapi_connection
        self.opened_at = self.returned_at = time.perf_counter()
        self._is_psycopg2 = hasattr(self.connection, "notices")
        self._word = sockets.word_from(self.connection)
        names = _SET_ON_PSYCOPG2 if self._is_psycopg2 else _SET_ON_PSYCOPG3
        self._pristine = dict(zip(names, attrgetter(*names)(self.connection), strict=True))
        self.is_closed = False

    def __del__(self) -> None:
        if not self.is_closed:
            self._note_loss(self)

    def has_word(self) -> bool:
        """Say whether the server has sent something to an idle connection, or has closed it; it takes a microsecond.

        A server that is restarted, fails over or ends a session says so at once; one behind a broken network does not.
        """
        return self._word() != 0

    def is_idle(self) -> bool:
        """Say whether no statement and no transaction is under way, and nothing was said that another could hear."""
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
        """Whether the driver can be asked to do anything: who is in the midst of an answer waits for its end."""
        connection = self.connection
        if connection.closed or connection.info.transaction_status == session.ACTIVE:
            return False
        # A generator of psycopg 3's that was broken off keeps the lock for as long as somebody refers to it.
        return self._is_psycopg2 or not (connection.lock.locked() or connection.pgconn.pipeline_status)

    @staticmethod
    def close_cursors(cursors: tuple[Any, ...]) -> None:
        """Close those that the borrower has left open, here and on the server."""
        for cursor in cursors:
            if not cursor.closed:
                cursor.close()

    def restore(self) -> None:
        """Set the driver's attributes to what they were; no transaction may be open."""
        for name, value in self._pristine.items():
            if getattr(self.connection, name) != value:
                setattr(self.connection, name, value)
        if not self._is_psycopg2:
            for _ in self.connection.notifies(timeout=0):
                pass
