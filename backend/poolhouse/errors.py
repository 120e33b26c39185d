"""The errors that pools raise."""

from dataclasses import dataclass
from typing import Any

from django.db import OperationalError


@dataclass(frozen=True)
class PoolUse:
    """The use of a pool when a checkout timed out. Every number counts connections."""

    size: int
    overflow: int
    """the most that may be open above size; -1: any number"""
    in_use: int
    waiting: int
    """callers that wait for one, including the one that timed out"""
    opening: int = 0
    """being opened or pinged for a caller; an abandoned attempt counts until it has ended"""


class PoolTimeoutError(OperationalError):
    """No connection was available within the pool's TIMEOUT.

    It is a `django.db.OperationalError`, so that code that handles an unreachable database handles it too.

    Attributes:
        alias: of the database.
        waited_s: how long the caller waited.
        use: of the pool at the timeout.
        longest: the holder of the longest lease, with its hold time; empty without one.
        reason: why no connection was available.
    """

    def __init__(self, alias: str, waited_s: float, use: PoolUse, longest: str, reason: str) -> None:
        self.alias, self.waited_s, self.use, self.longest, self.reason = alias, waited_s, use, longest, reason
        overflow = "any" if use.overflow < 0 else use.overflow
        opening = f"being opened {use.opening}, " if use.opening > 0 else ""
        text = (
            f"{alias}: no connection within {waited_s:.2f} s: {reason}; size {use.size}, overflow {overflow}, "
            f"in use {use.in_use}, {opening}waiting {use.waiting}"
        )
        super().__init__(f"{text}; {longest}" if longest else text)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with its attributes: Celery replaces errors that cannot be pickled by a plain OperationalError."""
        return type(self), (self.alias, self.waited_s, self.use, self.longest, self.reason)
