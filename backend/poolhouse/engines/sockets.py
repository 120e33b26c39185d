"""The socket of a connection: whether the server is still connected, and how to close it for certain."""

import ctypes
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from poolhouse.engines import native


class SeveredError(Exception):
    """A connection's socket was shut down at its deadline."""


class _Asked(ctypes.Structure):
    """poll(2)'s struct pollfd."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


# select.poll releases the GIL, and getting it back from busy threads costs forty times the call itself; a PyDLL
# keeps it. Nor does gevent replace this one, whose call would be bound to one thread.
_poll = ctypes.PyDLL(None).poll


def arrival_probe(connection: Any) -> Callable[[], int]:
    """Return a function that returns, without waiting, nonzero if data or a close has arrived from the server."""
    asked = _Asked(connection.fileno(), select.POLLIN | select.POLLRDHUP)
    return partial(_poll, ctypes.byref(asked), 1, 0)


def is_alive(connection: Any, timeout_s: float) -> bool:
    """Return True if the server answers a ping.

    Args:
        connection: the driver's, with no transaction open.
        timeout_s: until the answer; a server that accepts packets but does not answer counts as dead.
    """
    try:
        with severed_after(connection, timeout_s), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchall()
            if not connection.autocommit:
                connection.rollback()
    except (connection.Error, OSError, SeveredError):
        return False
    return True


@contextmanager
def severed_after(connection: Any, timeout_s: float) -> Iterator[None]:
    """Shut down a connection's socket if a block takes too long: a driver that waits cannot be interrupted.

    Raises:
        SeveredError: it was shut down, and the block has raised no error.
    """
    # On a copy of the descriptor: once the driver has closed the connection, its number may be another file's.
    with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        watchdog = _Watchdog(duplicate, timeout_s)
        try:
            yield
        finally:
            is_cut = watchdog.end()
        if is_cut:  # at the last moment: the next holder would get a closed connection
            raise SeveredError(f"the connection was closed: no answer within {timeout_s:g} s")


class _Watchdog:
    """Shuts down a socket at a deadline, unless it was cancelled."""

    def __init__(self, connected: socket.socket, timeout_s: float) -> None:
        self._connected = connected
        self._lock = native.new_lock()
        self._is_over = self._is_cut = False
        self._call_off = native.call_later(timeout_s, self._cut)

    def end(self) -> bool:
        """Cancel the deadline; return True if the socket was shut down."""
        self._call_off()
        with self._lock:
            self._is_over = True
            return self._is_cut

    def _cut(self) -> None:
        with self._lock:
            if not self._is_over:
                self._is_cut = True
                with suppress(OSError):  # the other side has closed it
                    self._connected.shutdown(socket.SHUT_RDWR)


def sever(connection: Any) -> None:
    """Shut down a connection's socket, so that waits on it fail, and closing it does not wait."""
    try:
        # On a copy of the descriptor, since the socket object closes its own; shutdown affects the connection itself.
        with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
    except (connection.Error, OSError):  # it is closed already
        pass


def disown(connection: Any) -> None:
    """Replace a socket that this process has inherited from its parent by /dev/null.

    Whatever is then done to the connection here, even by the garbage collector, does not reach the parent's session.
    """
    try:
        descriptor = connection.fileno()
    except connection.Error:  # it is closed, so nothing is shared
        return
    null = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(null, descriptor, inheritable=False)
    finally:
        os.close(null)
