"""The socket under a connection: whether its other end is still there, and how to let go of it for certain."""

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def poller_of(connection: Any) -> select.poll:
    """Give what tells whether something has come from the server, its goodbye included."""
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN | select.POLLRDHUP)
    return poller


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
    except Exception:  # noqa: BLE001 - whatever it is: a connection that cannot do this is not lent
        return False
    return True


@contextmanager
def severed_after(connection: Any, timeout_s: float) -> Iterator[None]:
    """Cut a connection's socket if a block takes too long: a driver that waits for the server cannot be interrupted."""
    timer = threading.Timer(timeout_s, sever, [connection])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def sever(connection: Any) -> None:
    """Cut a connection's socket, so that whoever waits for it gets an error, and closing it does not wait."""
    try:
        # On a copy of the descriptor, since the socket object closes its own; the cut is of the connection itself.
        with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
    except Exception:  # noqa: BLE001, S110 - it is closed already, which is what was wanted
        pass


def disown(connection: Any) -> None:
    """Put /dev/null in the place of a socket that this process has inherited from its parent.

    Whatever is done to the connection here afterwards, even by the garbage collector, the parent's session is safe.
    """
    try:
        descriptor = connection.fileno()
    except Exception:  # noqa: BLE001 - it is closed, so nothing is shared
        return
    null = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(null, descriptor, inheritable=False)
    finally:
        os.close(null)
