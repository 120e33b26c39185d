"""What one process tells of itself, and its form on the wire."""

import json
from dataclasses import dataclass
from typing import Any, Self

from poolhouse.histogram import Histogram
from poolhouse.leaks import Suspect
from poolhouse.pools import PoolState

WIRE_VERSION = 2


def _as_wire(value: PoolState | Suspect | Histogram) -> Any:
    return value.to_wire() if isinstance(value, Histogram) else vars(value)


def _pool_state(document: dict[str, Any]) -> PoolState:
    for name in ("wait", "hold", "connect"):
        if document[name] is not None:
            document[name] = Histogram.from_wire(document[name])
    document["suspects"] = tuple(Suspect(**suspect) for suspect in document["suspects"])
    return PoolState(**document)


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
        document = {"version": WIRE_VERSION, **vars(self)}
        return json.dumps(document, separators=(",", ":"), default=_as_wire)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self | None:
        """Decode; None for what is no report of this version, as while a fleet is being upgraded."""
        try:
            document: dict[str, Any] = json.loads(text)
            if document.pop("version") != WIRE_VERSION:
                return None
            pools = tuple(_pool_state(pool) for pool in document.pop("pools"))
            return cls(pools=pools, **document)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
