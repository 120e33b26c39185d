"""What the pools raise."""

from dataclasses import dataclass
from typing import Any

from django.db import OperationalError


@dataclass(frozen=True)
class PoolUse:
    """How a pool was used at the moment when it had nothing to lend. Every number counts connections."""

    size: int
    overflow: int
    """how many may be open above size; -1: any"""
    in_use: int
    waiting: int
    """callers that wait for one, the one who was refused included"""
    opening: int = 0
    """being opened, or looked at, for somebody; an attempt that its caller has given up counts until it has ended"""


class PoolTimeoutError(OperationalError):
    """No connection within the pool's TIMEOUT.

    It is a `django.db.OperationalError`, so that what handles a database that is away handles this as well.

    Attributes:
        alias: the database's.
        waited_s: how long the caller waited.
        use: of the pool, when it gave up.
        longest: who has held a connection longest, and how long; empty if nobody holds one.
        reason: why none could be had.
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
        """Pickle as what it is: Celery makes a plain OperationalError of what cannot be pickled."""
        return type(self), (self.alias, self.waited_s, self.use, self.longest, self.reason)
