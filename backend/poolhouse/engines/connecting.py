"""Opening a connection within a time, however long name service, network or server take."""

import threading
from collections.abc import Callable
from typing import Any


class TooSlowError(Exception):
    """A connection was not open in time."""


class _Attempt(threading.Thread):
    """One call, on a thread of its own, so that its caller can stop waiting for it."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        super().__init__(name="poolhouse-connect", daemon=True)
        self._connect = connect
        self._lock = threading.Lock()
        self._is_abandoned = False
        self.done = threading.Event()
        self.connection: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            connection = self._connect()
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that asked
            self.error = error
        else:
            with self._lock:
                if self._is_abandoned:
                    connection.close()
                else:
                    self.connection = connection
        self.done.set()

    def abandon(self) -> None:
        """Stop waiting; a connection that comes after this is closed."""
        with self._lock:
            self._is_abandoned = True
            if self.connection is not None:  # it came in the last moment
                self.connection.close()


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
    attempt = _Attempt(connect)
    attempt.start()
    if not attempt.done.wait(timeout_s):
        attempt.abandon()
        raise TooSlowError(f"connecting took more than {timeout_s:.2f} s")
    if attempt.error is not None:
        raise attempt.error
    return attempt.connection
