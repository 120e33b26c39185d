"""The faults: each begins, lasts and ends; faults of the same target do not overlap."""

import signal
from abc import ABC, abstractmethod
from typing import ClassVar

from lab.chaos.mounts import Disk
from lab.chaos.relay import Relay
from lab.chaos.spools import Spool
from lab.chaos.system import System, crash

LEFT_BYTES_MAX = 100_000


class Fault(ABC):
    """A fault."""

    kind: ClassVar[str]
    target: ClassVar[str]
    longest_s: ClassVar[float] = 0.0
    """0: the fault has no duration"""

    def __init__(self, system: System, spool: Spool, chance: float) -> None:
        self.system, self.spool, self.chance = system, spool, chance

    @abstractmethod
    def begin(self) -> str:
        """Inject the fault; return a description of its victim."""

    def end(self) -> None:  # noqa: B027 - most faults have no duration
        """End the fault."""


class _WorkerChildKilled(Fault):
    """A child process of the worker is killed."""

    kind, target = "worker child killed", "worker"

    def begin(self) -> str:
        return self.system.services["worker"].kill_child(self.chance)


class _WorkerMainKilled(Fault):
    """The main process of the worker is killed; its children stay."""

    kind, target = "worker main killed", "worker"

    def begin(self) -> str:
        return self.system.services["worker"].kill(with_children=False)


class _WorkerKilled(Fault):
    """All processes of the worker are killed, as with its container."""

    kind, target = "whole worker killed", "worker"

    def begin(self) -> str:
        return self.system.services["worker"].kill(with_children=True)


class _WebChildKilled(Fault):
    """A process of the web is killed with its requests."""

    kind, target = "web child killed", "web"

    def begin(self) -> str:
        return self.system.services["web"].kill_child(self.chance)


class _WebKilled(Fault):
    """The web is killed: its main process, or all processes."""

    kind, target = "web killed", "web"

    def begin(self) -> str:
        return self.system.services["web"].kill(with_children=self.chance < 0.5)


class _BeatKilled(Fault):
    """Beat is killed, perhaps while it writes its schedule."""

    kind, target = "beat killed", "beat"

    def begin(self) -> str:
        return self.system.services["beat"].kill(with_children=True)


class _PostgresRestarted(Fault):
    """The database server stops in immediate mode and starts again later."""

    kind, target, longest_s = "PostgreSQL restarted", "database", 6.0

    def begin(self) -> str:
        crash(self.system.timescale, signal.SIGQUIT)
        return "immediate mode"

    def end(self) -> None:
        self.system.timescale.start()


class _AnswersLost(Fault):
    """The database runs all statements, but its answers to COMMIT or to everything are lost and connections reset."""

    kind, target, longest_s = "database answers lost", "database", 1.0

    def begin(self) -> str:
        after = "COMMIT" if self.chance < 0.7 else ""
        self.system.database_network.lose_answers(after.encode())
        return f"to {after or 'everything'}"

    def end(self) -> None:
        self.system.database_network.heal()


class _RedisRestarted(Fault):
    """Redis is terminated or killed, and starts again later."""

    kind, target, longest_s = "Redis restarted", "redis", 8.0

    def begin(self) -> str:
        how = signal.SIGKILL if self.chance < 0.5 else signal.SIGTERM
        crash(self.system.redis, how)
        return how.name

    def end(self) -> None:
        self.system.redis.start()


class _RedisEmptied(Fault):
    """Redis loses all its data."""

    kind, target = "Redis emptied", "redis"

    def begin(self) -> str:
        self.system.flush_redis()
        return "FLUSHALL"


class _DiskFull(Fault):
    """The spool's disk is full, or has space for a part of a file."""

    kind, target, longest_s = "spool disk full", "spool", 8.0

    @property
    def _disk(self) -> Disk:
        if self.spool.disk is None:
            raise ValueError("the fault needs a spool on a disk of its own")
        return self.spool.disk

    def begin(self) -> str:
        left_bytes = int(self.chance * LEFT_BYTES_MAX)
        self._disk.fill(left_bytes)
        return f"{left_bytes:,} bytes left"

    def end(self) -> None:
        self._disk.clear()


class _StoreFault(Fault):
    """A fault of the network between the services and the spool's object store."""

    target, longest_s = "spool", 8.0

    @property
    def network(self) -> Relay:
        if self.spool.network is None:
            raise ValueError("the fault needs a spool in an object store")
        return self.spool.network

    def end(self) -> None:
        self.network.heal()


class _StoreRefuses(_StoreFault):
    """The spool's object store refuses connections."""

    kind = "store refuses"

    def begin(self) -> str:
        self.network.refuse()
        return "connections reset, new ones refused"


class _StoreSilent(_StoreFault):
    """The spool's object store does not answer."""

    kind = "store silent"

    def begin(self) -> str:
        self.network.fall_silent()
        return "no data is forwarded"


_EVERYWHERE: tuple[type[Fault], ...] = (
    _WorkerChildKilled,
    _WorkerMainKilled,
    _WorkerKilled,
    _WebChildKilled,
    _WebKilled,
    _BeatKilled,
    _PostgresRestarted,
    _AnswersLost,
    _RedisRestarted,
    _RedisEmptied,
)
_ON_DISK: tuple[type[Fault], ...] = (_DiskFull,)
_IN_STORE: tuple[type[Fault], ...] = (_StoreRefuses, _StoreSilent)


KINDS = tuple(fault.kind for fault in (*_EVERYWHERE, *_ON_DISK, *_IN_STORE))


def faults_of(spool: Spool) -> dict[str, type[Fault]]:
    """Return the faults that are possible with this spool, by kind."""
    kinds = _EVERYWHERE + (_ON_DISK if spool.disk else ()) + (_IN_STORE if spool.network else ())
    return {kind.kind: kind for kind in kinds}
