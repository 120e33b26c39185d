"""Opening a connection within a timeout that also covers the name service, the network and the server."""

import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Generic, TypeVar
from weakref import ref

from poolhouse.engines import native
from poolhouse.fork_lock import fork_lock

T = TypeVar("T")

THREAD_NAME = "poolhouse-connect"


class TooSlowError(Exception):
    """The connection was not opened within the timeout."""


class _State(Enum):
    NEW = auto()
    RUNNING = auto()
    ENDED = auto()


class Attempt(Generic[T]):
    """One call on a thread of its own, so that its caller can stop waiting for it.

    The connection goes either to the caller or to `late`, whatever exception is raised, and wherever: a lock guards the
    moment of the hand-over from the thread to the caller. If nothing was opened, the thread calls `late` before its
    caller gets the error: an exception may interrupt the caller before it can handle the error, and a kept error keeps
    the thread's frames.
    """

    def __init__(self, connect: Callable[[], T], late: Callable[[T | None], None]) -> None:
        """Prepare the call.

        Args:
            connect: opens and returns a connection; called on the other thread.
            late: called with the connection if the caller does not get it, or with None, once or twice, if none was
                opened; on the caller's thread if the other one has not begun or has ended.
        """
        self._connect, self._late = connect, late
        self._lock = threading.Lock()
        # A lock in place of an Event: acquiring it is one call in C, which a signal cannot
        # interrupt half-way.
        self._ended = threading.Lock()
        self._ended.acquire()
        self._state, self._is_abandoned = _State.NEW, False
        self._opened: T | None = None
        self._error: BaseException | None = None

    def opened_within(self, timeout_s: float) -> T:
        """Start the call and wait for its connection; call it once.

        Raises:
            TooSlowError: it took longer.
            any error that connect raises in time.
        """
        deadline = time.perf_counter() + timeout_s
        try:
            if timeout_s <= 0:
                raise TooSlowError("no time left to connect")
            # The thread has a weak reference: if this call ends before the thread begins, nothing is opened, although
            # Python may keep the thread object for ever.
            threading.Thread(target=_run, args=(ref(self),), name=THREAD_NAME, daemon=True).start()
            if not self._ended.acquire(timeout=timeout_s):
                raise TooSlowError(f"connecting took more than {timeout_s:.2f} s")
            self._raise_error(deadline, timeout_s)
            return self._opened  # type: ignore[return-value]  # set if no error was raised
        except BaseException:  # one of these, or an exception of a signal handler or a greenlet's timeout
            self._abandon()
            raise

    def _raise_error(self, deadline: float, timeout_s: float) -> None:
        error, self._error = self._error, None
        try:
            if error is not None and time.perf_counter() > deadline:
                # For example the driver's own timeout, while this thread was not running.
                raise TooSlowError(f"connecting took more than {timeout_s:.2f} s: {error}")
            if error is not None:
                raise error
        finally:
            del error  # its traceback refers to this frame and to everything that failed with it, such as a socket

    def _abandon(self) -> None:
        with self._lock:
            self._is_abandoned = True
            is_under_way = self._state is _State.RUNNING
        if not is_under_way:
            self._hand_over()

    def run(self) -> None:
        """Run the call, and hand the connection to `late` if the caller has stopped waiting."""
        with self._lock:
            if self._is_abandoned:
                return
            self._state = _State.RUNNING
        try:
            with fork_lock.shared():
                self._opened = native.call(self._connect)
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that asked
            self._error = error
            self._late(None)
        with self._lock:
            self._state = _State.ENDED
            is_abandoned = self._is_abandoned
        self._ended.release()
        if is_abandoned:
            self._hand_over()

    def _hand_over(self) -> None:
        self._error = None  # it refers to the thread and to this attempt
        opened, self._opened = self._opened, None
        self._late(opened)


def _run(found: "ref[Attempt[Any]]") -> None:
    if (attempt := found()) is not None:
        attempt.run()


def connect_within(timeout_s: float, connect: Callable[[], Any]) -> Any:
    """Open a connection within a timeout.

    The driver's connect_timeout does not suffice: it is in whole seconds, at least two, applies to each address of a
    name, and does not cover the name service.

    Args:
        timeout_s: how long it may take.
        connect: opens and returns it; called on another thread.

    Raises:
        TooSlowError: it took longer; the attempt goes on, and its connection is closed.
        any error that connect raises.
    """
    return Attempt(connect, _close).opened_within(timeout_s)


def _close(connection: Any) -> None:
    if connection is not None:
        connection.close()
