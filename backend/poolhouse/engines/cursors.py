"""Cursors that know for whom they are: what they run is noted with the lease, and they end with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import InterfaceError

from poolhouse.engines import session
from poolhouse.engines.state import leaves_state
from poolhouse.tracing.sql import READ_MAX_CHARS

if TYPE_CHECKING:
    from poolhouse.engines.lending import Lease


class LentCursor:
    """Is put before the driver's class of cursors, so that nothing that runs a statement goes past it."""

    lease: "Lease | None" = None
    """None where the borrower has gone past the lent connection to make it"""

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a statement."""
        _note(self, query)
        return super().execute(query, *args, **kwargs)  # type: ignore[misc]  # the driver's

    def executemany(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a statement for each of many parameters."""
        _note(self, query)
        return super().executemany(query, *args, **kwargs)  # type: ignore[misc]

    def callproc(self, name: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function of the server's."""
        _note(self, f"{name}(")
        return super().callproc(name, *args, **kwargs)  # type: ignore[misc]

    def stream(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a statement whose rows come one by one; psycopg 3 alone has it."""
        _note(self, query)
        return super().stream(query, *args, **kwargs)  # type: ignore[misc]

    @contextmanager
    def copy(self, statement: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Run a COPY for the length of a block; psycopg 3 alone has it."""
        _note(self, statement)
        with super().copy(statement, *args, **kwargs) as copy:  # type: ignore[misc]
            yield copy

    def copy_expert(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a COPY; psycopg2 alone has it, and the two that follow."""
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
def lent(kind: type[Any]) -> type[Any]:
    """Give a class of cursors that does what another does, and notes it."""
    return type(f"Lent{kind.__name__}", (LentCursor, kind), {"__module__": __name__})
