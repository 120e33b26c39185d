"""A connection for the monitor, outside every pool, that ends at a deadline whatever the server does."""

import math
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, Protocol


class Cursor(Protocol):
    """The part of the DB-API that the monitor uses; psycopg 2 and 3 both have it."""

    @property
    def connection(self) -> Any:
        """The driver's connection of this cursor."""

    @property
    def description(self) -> Sequence[Sequence[Any]] | None:
        """The columns of the result, each with its name first."""

    def execute(self, query: str, /) -> Any:
        """Run a statement within the deadline."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows of the last statement."""


@contextmanager
def bounded_cursor(driver: ModuleType, timeout_s: float, *conninfo: str, **params: Any) -> Iterator[Cursor]:
    """Connect, yield a cursor in autocommit mode, and close.

    libpq limits connecting, and the server its own statements; neither limits a server that took the statement and then
    stopped. So at the deadline the socket is shut down, which ends any wait for it.

    Args:
        driver: psycopg2, or psycopg 3.
        timeout_s: from the connecting until the last answer; libpq takes it for each address of a host.
        conninfo: a URL, if there is one.
        params: as libpq knows them.

    Raises:
        the driver's OperationalError: the server cannot be reached, or has not answered in time.
    """
    deadline = time.monotonic() + timeout_s
    # libpq takes whole seconds.
    bounds = {"connect_timeout": math.ceil(timeout_s), "tcp_user_timeout": math.ceil(timeout_s * 1000)}
    connection = driver.connect(*conninfo, **{**params, **bounds})
    try:
        connection.autocommit = True
        with _shut_down_at(deadline, connection.fileno()) as shut_down, connection.cursor() as cursor:
            try:
                yield cursor
            except driver.Error as error:
                if shut_down.is_set():
                    raise driver.OperationalError(f"no answer within {timeout_s:g} s") from error
                raise
    finally:
        connection.close()


@contextmanager
def _shut_down_at(deadline: float, fileno: int) -> Iterator[threading.Event]:
    """Shut down a socket if the block lasts until the deadline; yield the event that is then set."""
    done = threading.Event()

    def shut_down() -> None:
        done.set()
        with suppress(OSError):  # the other side has closed it
            connected.shutdown(socket.SHUT_RDWR)

    # A descriptor of its own: once the driver has closed the connection, its number may be another file's.
    with socket.socket(fileno=os.dup(fileno)) as connected:
        timer = threading.Timer(deadline - time.monotonic(), shut_down)
        timer.daemon = True
        timer.start()
        try:
            yield done
        finally:
            timer.cancel()
