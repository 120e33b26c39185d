"""The object that a holder gets as its connection, which is checked in when it is closed or dropped."""

import traceback
from contextlib import suppress
from typing import Any, Protocol

from django.db import InterfaceError

from poolhouse.engines.cursors import LeasedCursor
from poolhouse.engines.lease import Lease

# The attributes that Django and the status only read. Any other access may change the connection's state.
_ONLY_READ = frozenset({"adapters", "commit", "info", "rollback", "server_version", "encoding"})


class ConnectionOwner(Protocol):
    """The pool that a connection is checked out from."""

    def check_in(self, connection: "LeasedConnection") -> None:
        """Take a connection back from its holder."""


class LeasedConnection:
    """The driver's connection for one checkout; closing or dropping it checks it in.

    SQLAlchemy's own class does more at ten times the cost. Attributes are read through; set them on
    `driver_connection`. The cursors of the checkout end with it.
    """

    __slots__ = ("__weakref__", "_owner", "lease", "raw")

    def __init__(self, raw: Any, lease: Lease, owner: ConnectionOwner) -> None:
        self.raw = raw
        """the driver's connection, for this engine's use; None after check-in"""
        self.lease = lease
        self._owner: ConnectionOwner | None = owner

    def __getattr__(self, name: str) -> Any:
        if name not in _ONLY_READ:
            self.lease.is_touched = True
        return getattr(self._open_one(), name)

    @property
    def driver_connection(self) -> Any:
        """The driver's connection; None after check-in."""
        self.lease.is_touched = True
        return self.raw

    @property
    def autocommit(self) -> bool:
        """Whether each statement is a transaction of its own."""
        return bool(self._open_one().autocommit)

    @autocommit.setter
    def autocommit(self, autocommit: bool) -> None:
        self._open_one().autocommit = autocommit

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Return a cursor of the driver's class that notes its statements."""
        cursor = self._open_one().cursor(*args, **kwargs)
        if isinstance(cursor, LeasedCursor):
            cursor.lease = self.lease
        else:  # a class of the holder's own: its statements are not seen
            self.lease.leaves_state = True
        if args or kwargs:
            self.end_with_lease(cursor)
        return cursor

    def end_with_lease(self, cursor: Any) -> None:
        """Close a server-side cursor at check-in."""
        if getattr(cursor, "name", None):
            self.lease.named_cursors += (cursor,)

    @property
    def closed(self) -> bool:
        """Whether it was checked in or closed."""
        return self.raw is None or bool(self.raw.closed)

    def close(self) -> None:
        """Check the connection in; closing it twice is not an error."""
        if self._owner is not None:
            try:
                self._owner.check_in(self)  # it also closes cursors
            except BaseException as error:
                forget_locals(error)
                raise
            finally:
                self.raw = None
            self._owner = None  # only now: a signal handler may have raised an exception in between

    def _open_one(self) -> Any:
        if self.raw is None:
            raise InterfaceError("connection already closed")
        return self.raw


# Frames of others keep their locals: an error page may show them, and clearing a generator would close it.
_CLEARED_MODULES = ("poolhouse.engines.", "sqlalchemy.pool.")


def forget_locals(error: BaseException) -> None:
    """Clear the locals of the engine's frames in a traceback, so that a kept exception does not keep the permit."""
    passed: BaseException | None = error
    while passed is not None:
        for frame, _ in traceback.walk_tb(passed.__traceback__):
            if frame.f_globals.get("__name__", "").startswith(_CLEARED_MODULES):
                with suppress(RuntimeError):  # a running frame cannot be cleared
                    frame.clear()
        passed = passed.__context__
