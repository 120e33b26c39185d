"""Cursors of a checkout: they note their statements in the lease, and are closed with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from django.db import InterfaceError

from poolhouse.engines import session
from poolhouse.engines.lease import Lease
from poolhouse.engines.state import leaves_state
from poolhouse.tracing.sql import READ_MAX_CHARS


class LeasedCursor:
    """Mixed in before the driver's cursor class, so that each statement passes through it."""

    lease: Lease | None = None
    """None if the holder made the cursor from the driver's connection itself"""

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a statement, and note it in the lease."""
        _note(self, query)
        return super().execute(query, *args, **kwargs)  # type: ignore[misc]  # the driver's

    def executemany(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a statement once for each set of parameters."""
        _note(self, query)
        return super().executemany(query, *args, **kwargs)  # type: ignore[misc]

    def callproc(self, name: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function of the server."""
        _note(self, f"{name}(")
        return super().callproc(name, *args, **kwargs)  # type: ignore[misc]

    def stream(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a statement and yield its rows as they arrive (psycopg 3)."""
        _note(self, query)
        return super().stream(query, *args, **kwargs)  # type: ignore[misc]

    @contextmanager
    def copy(self, statement: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Run a COPY for the length of a block (psycopg 3)."""
        _note(self, statement)
        with super().copy(statement, *args, **kwargs) as copy:  # type: ignore[misc]
            yield copy

    def copy_expert(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a COPY (psycopg2, as are the next two)."""
        _note(self, sql)
        return super().copy_expert(sql, *args, **kwargs)  # type: ignore[misc]

    def copy_from(self, file: Any, table: str, *args: Any, **kwargs: Any) -> Any:
        """Load a table from a file."""
        _note(self, f"COPY {table} FROM STDIN")
        return super().copy_from(file, table, *args, **kwargs)  # type: ignore[misc]

    def copy_to(self, file: Any, table: str, *args: Any, **kwargs: Any) -> Any:
        """Write a table to a file."""
        _note(self, f"COPY {table} TO STDOUT")
        return super().copy_to(file, table, *args, **kwargs)  # type: ignore[misc]


def _note(cursor: Any, query: Any) -> None:
    lease = cursor.lease
    if lease is None:
        return
    if lease.is_over:
        raise InterfaceError("cursor already closed: its connection was checked in to the pool")
    text = query if isinstance(query, str) else session.text_of(query, cursor)
    lease.last_statement = text[:READ_MAX_CHARS]
    if not lease.leaves_state and leaves_state(text):
        lease.leaves_state = True


@cache
def leased_class(kind: type[Any]) -> type[Any]:
    """Return the class of cursors that inherits from the driver's and notes its statements."""
    return type(f"Leased{kind.__name__}", (LeasedCursor, kind), {"__module__": __name__})
