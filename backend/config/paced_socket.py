"""A connection with a minimum rate: a client that is too slow is disconnected, so that it does not occupy a thread."""

import errno
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Pace:
    """How long a thread may still wait for a client: a token bucket.

    It starts with `idle_s` seconds. Waiting uses them up, and every `bytes_per_s` bytes that the client sends or reads
    add one second, up to `idle_s`. This limits both an idle and a slow client at any point of a transfer.
    """

    def __init__(self, idle_s: float, bytes_per_s: int) -> None:
        self.idle_s, self.bytes_per_s = idle_s, bytes_per_s
        self.left_s = idle_s

    def spend(self, waited_s: float, size_bytes: int) -> None:
        """Subtract a wait, and add what the transferred bytes are worth."""
        self.left_s = min(self.idle_s, self.left_s - waited_s + size_bytes / self.bytes_per_s)

    def __str__(self) -> str:
        return f"it has fallen behind the minimum of {self.bytes_per_s:,} bytes/s by more than {self.idle_s:g} s"


class SlowClientError(ConnectionResetError):
    """A client is slower than its pace allows; its thread treats it as disconnected."""

    def __init__(self, pace: Pace) -> None:
        super().__init__(errno.ECONNRESET, f"the client is too slow: {pace}")


class PacedSocket(socket.socket):
    """A connected socket whose blocking calls are limited by a pace."""

    def __init__(self, connected: socket.socket, pace: Pace) -> None:
        super().__init__(fileno=connected.detach())
        self._timeout_s: float | None = None
        self.set_pace(pace.idle_s, pace.bytes_per_s)

    def set_pace(self, idle_s: float, bytes_per_s: int) -> None:
        """Start a new pace; every request has its own."""
        self.pace = Pace(idle_s, bytes_per_s)

    def settimeout(self, value: float | None) -> None:
        """Limit a wait by the pace only (None), by a number of seconds as well, or do not wait (0)."""
        self._timeout_s = value
        super().settimeout(value)

    def gettimeout(self) -> float | None:
        """Return the value that `settimeout` was called with."""
        return self._timeout_s

    def setblocking(self, flag: bool) -> None:
        """Call `settimeout(None)` or `settimeout(0)`."""
        self.settimeout(None if flag else 0.0)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Receive some bytes.

        Raises:
            SlowClientError: the client is slower than the pace allows.
            TimeoutError: the timeout of `settimeout` has passed.
        """
        receive = super().recv
        piece: bytes = self._paced(lambda: receive(bufsize, flags), len)
        return piece

    def send(self, data: Any, flags: int = 0) -> int:
        """Send some of the bytes, and return how many.

        Raises:
            SlowClientError: the client is slower than the pace allows.
            TimeoutError: the timeout of `settimeout` has passed.
        """
        send = super().send
        size_bytes: int = self._paced(lambda: send(data, flags), int)
        return size_bytes

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all bytes, each part within the pace.

        Raises:
            SlowClientError: the client is slower than the pace allows.
            TimeoutError: the timeout of `settimeout` has passed.
        """
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[self.send(rest, flags) :]

    def _paced(self, transfer: Callable[[], Any], size_of: Callable[[Any], int]) -> Any:
        if self._timeout_s == 0:
            return transfer()
        begun_at = time.monotonic()
        with self._bounded():
            done = transfer()
        self.pace.spend(time.monotonic() - begun_at, size_of(done))
        return done

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        left_s = self.pace.left_s
        if left_s <= 0:
            raise SlowClientError(self.pace)
        is_own = self._timeout_s is None or left_s < self._timeout_s
        super().settimeout(left_s if is_own else self._timeout_s)
        try:
            yield
        except TimeoutError:
            if is_own:
                raise SlowClientError(self.pace) from None
            raise
