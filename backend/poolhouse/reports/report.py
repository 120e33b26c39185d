"""The report of one process, and its form on the wire."""

import json
from dataclasses import dataclass, fields
from typing import Any, Self

from poolhouse.engines.leaks import Suspect
from poolhouse.measures.histogram import Histogram
from poolhouse.process.activity import Activity
from poolhouse.process.pools import PoolState

WIRE_VERSION = 2


def _as_wire(value: PoolState | Suspect | Activity | Histogram) -> Any:
    return value.to_wire() if isinstance(value, Histogram) else vars(value)


def _pool_state(document: dict[str, Any]) -> PoolState:
    for name in ("wait", "hold", "connect"):
        if document[name] is not None:
            document[name] = Histogram.from_wire(document[name])
    document["suspects"] = tuple(Suspect(**suspect) for suspect in document["suspects"])
    return PoolState(**_known(PoolState, document))


def _activity(document: dict[str, Any]) -> Activity:
    for name in ("statements", "wait", "hold"):
        if document.get(name) is not None:  # an older process does not report all of them
            document[name] = Histogram.from_wire(document[name])
    return Activity(**_known(Activity, document))


def _known(kind: type, document: dict[str, Any]) -> dict[str, Any]:
    """Remove the keys of a newer version."""
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in document.items() if name in names}


@dataclass(frozen=True)
class ProcessReport:
    """The report of one process. Times are seconds since the epoch, by that process' clock."""

    name: str
    """its application_name: service@host:pid"""
    service: str
    host: str
    pid: int
    started_at: float
    reported_at: float
    pools: tuple[PoolState, ...]
    activity: tuple[Activity, ...] = ()
    """since the process started, as are the counts of the pools"""
    recent: tuple[Activity, ...] = ()
    """in the last `poolhouse.process.activity.RECENT_S`"""
    run: str = ""
    """random: distinguishes processes with the same name, as in containers with equal host names"""

    @property
    def key(self) -> str:
        """The key, unique to this process."""
        return f"{self.name}/{self.run}"

    def to_json(self) -> str:
        """Return the report as JSON for the store."""
        document = {"version": WIRE_VERSION, **vars(self)}
        return json.dumps(document, separators=(",", ":"), default=_as_wire)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self | None:
        """Decode; return None for a report of another version, as during an upgrade of the fleet."""
        try:
            document: dict[str, Any] = json.loads(text)
            if document.pop("version") != WIRE_VERSION:
                return None
            document["pools"] = tuple(map(_pool_state, document["pools"]))
            for span in ("activity", "recent"):
                document[span] = tuple(map(_activity, document.get(span, ())))
            return cls(**_known(cls, document))
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
