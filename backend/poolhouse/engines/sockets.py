"""The socket under a connection: whether its other end is still there, and how to let go of it for certain."""

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
    """A connection's socket was cut, since something took too long on it."""


class _Asked(ctypes.Structure):
    """poll(2)'s struct pollfd."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


# Python's own select.poll lets other threads have the interpreter meanwhile, and where they are busy, having it back
# costs forty times what the question does; a PyDLL keeps it. Nor is this one gevent's, which is of one thread alone.
_poll = ctypes.PyDLL(None).poll


def word_from(connection: Any) -> Callable[[], int]:
    """Give what tells, without waiting, whether something has come from the server, its goodbye included: 0 if not."""
    asked = _Asked(connection.fileno(), select.POLLIN | select.POLLRDHUP)
    return partial(_poll, ctypes.byref(asked), 1, 0)


def is_alive(connection: Any, timeout_s: float) -> bool:
    """Ask the server for a sign of life.

    Args:
        connection: the driver's, with no transaction open.
        timeout_s: how long it may take; a server that accepts packets and does not answer counts as dead as well.
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
    """Cut a connection's socket if a block takes too long: a driver that waits for the server cannot be interrupted.

    Raises:
        SeveredError: it was cut, and the block has not raised.
    """
    # Of a copy of the descriptor: when the driver has closed the connection, its number may be another file's.
    with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        watchdog = _Watchdog(duplicate, timeout_s)
        try:
            yield
        finally:
            is_cut = watchdog.end()
        if is_cut:  # in the last moment: whoever is lent it next would have it cut
            raise SeveredError(f"the connection was closed: no answer within {timeout_s:g} s")


class _Watchdog:
    """Cuts a socket after a time, unless it has been told that this is over."""

    def __init__(self, connected: socket.socket, timeout_s: float) -> None:
        self._connected = connected
        self._lock = native.new_lock()
        self._is_over = self._is_cut = False
        self._call_off = native.call_later(timeout_s, self._cut)

    def end(self) -> bool:
        """Leave the socket alone from here on; say whether it was cut."""
        self._call_off()
        with self._lock:
            self._is_over = True
            return self._is_cut

    def _cut(self) -> None:
        with self._lock:
            if not self._is_over:
                self._is_cut = True
                with suppress(OSError):  # the other side was faster
                    self._connected.shutdown(socket.SHUT_RDWR)


def sever(connection: Any) -> None:
    """Cut a connection's socket, so that whoever waits for it gets an error, and closing it does not wait."""
    try:
        # On a copy of the descriptor, since the socket object closes its own; the cut is of the connection itself.
        with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
    except (connection.Error, OSError):  # it is closed already, which is what was wanted
        pass


def disown(connection: Any) -> None:
    """Put /dev/null in the place of a socket that this process has inherited from its parent.

    Whatever is done to the connection here afterwards, even by the garbage collector, the parent's session is safe.
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
