"""What one process tells of itself, and its form on the wire."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from poolhouse.pools import PoolState

WIRE_VERSION = 1


@dataclass(frozen=True)
class ProcessReport:
    """The pools of one process. Times are seconds since the epoch, by that process's own clock."""

    name: str
    """its application_name: service@host:pid"""
    service: str
    host: str
    pid: int
    started_at: float
    reported_at: float
    pools: tuple[PoolState, ...]

    def to_json(self) -> str:
        """Encode for the store."""
        return json.dumps({"version": WIRE_VERSION, **asdict(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self | None:
        """Decode; None for what is no report of this version, as while a fleet is being upgraded."""
        try:
            document: dict[str, Any] = json.loads(text)
            if document.pop("version") != WIRE_VERSION:
                return None
            pools = tuple(PoolState(**pool) for pool in document.pop("pools"))
            return cls(pools=pools, **document)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
