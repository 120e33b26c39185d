"""Opening a connection within a time, however long name service, network or server take."""

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from poolhouse.engines import native
from poolhouse.fork_lock import fork_lock

T = TypeVar("T")


class TooSlowError(Exception):
    """A connection was not open in time."""


class Attempt(threading.Thread, Generic[T]):
    """One call, on a thread of its own, so that its caller can stop waiting for it."""

    def __init__(self, connect: Callable[[], T], late: Callable[[T | None], None]) -> None:
        """Prepare it.

        Args:
            connect: opens a connection, and gives it; called on the other thread.
            late: is called there with what was opened after the caller had stopped waiting, or with None if it failed.
        """
        super().__init__(name="poolhouse-connect", daemon=True)
        self._connect, self._late = connect, late
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._opened: T | None = None
        self._error: BaseException | None = None
        self.is_abandoned = False
        """its caller waits no longer; `late` gets what comes of it"""

    def run(self) -> None:
        """Call, and hand on what comes of it."""
        try:
            with fork_lock.shared():
                self._opened = native.call(self._connect)
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that asked
            self._error = error
        with self._lock:
            self._done.set()
            is_late = self.is_abandoned
        if is_late:
            self._error = None  # it refers to this thread
            self._late(self._opened)

    def opened_within(self, timeout_s: float) -> T:
        """Start it, and wait for what it opens.

        Raises:
            TooSlowError: it took longer.
            whatever connect raises in time.
        """
        deadline = time.perf_counter() + timeout_s
        self.start()
        try:
            is_done = self._done.wait(timeout_s)
        except BaseException:  # a signal's, a greenlet's timeout: nobody waits any longer
            self._abandon()
            raise
        if not is_done and self._abandon():
            raise TooSlowError(f"connecting took more than {timeout_s:.2f} s")
        if self._error is not None:
            error, self._error = self._error, None
            try:
                if time.perf_counter() > deadline:  # the driver's own timeout, say, while this thread was not running
                    raise TooSlowError(f"connecting took more than {timeout_s:.2f} s: {error}")
                raise error
            finally:
                del error  # its traceback refers to this frame, and to all that failed with it: a socket, say
        return self._opened  # type: ignore[return-value]  # it is there where there is no error

    def _abandon(self) -> bool:
        """Stop waiting; False: it has ended in this moment."""
        with self._lock:
            self.is_abandoned = not self._done.is_set()
            return self.is_abandoned


def connect_within(timeout_s: float, connect: Callable[[], Any]) -> Any:
    """Open a connection.

    The driver's own connect_timeout does not do: it is in whole seconds, two at least, for each address that a name
    has, and the name service is not bounded by it.

    Args:
        timeout_s: how long it may take.
        connect: opens it, and gives it; called on another thread.

    Raises:
        TooSlowError: it took longer; the attempt is left to itself, and what it opens is closed.
        whatever connect raises.
    """
    if timeout_s <= 0:
        raise TooSlowError("no time was left to connect")
    return Attempt(connect, _close).opened_within(timeout_s)


def _close(connection: Any) -> None:
    if connection is not None:
        connection.close()
