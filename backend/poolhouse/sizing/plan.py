"""The same load per process on more processes than now: the tiers of PgBouncer that they need."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil, log2

from poolhouse.sizing.fleet import Bouncers, Deployment, bouncers
from poolhouse.sizing.process import ProcessAdvice
from poolhouse.sizing.queue import Demand

WEB_PROCESSES = (10, 100, 1_000, 10_000)


@dataclass(frozen=True)
class Capacity:
    """The load that one PgBouncer process, which has one thread, can serve: an assumption until it is measured."""

    clients: int = 5_000
    transactions_per_s: float = 20_000.0

    def instances(self, clients: int, transactions_per_s: float) -> int:
        """Return the number of processes needed, a power of two: then more load never leads to fewer connections."""
        needed = max(clients / self.clients, transactions_per_s / self.transactions_per_s, 1.0)
        return 1 << ceil(log2(needed))


@dataclass(frozen=True)
class Row:
    """A number of web processes, and the tiers of PgBouncer in front of the server."""

    web_processes: int
    hosts: int
    direct: int
    """connections without PgBouncer"""
    sidecar: Bouncers | None
    """one on each host"""
    central: Bouncers | None
    deployment: Deployment
    """its workers, beat and monitor go to the server directly"""

    @property
    def way(self) -> str:
        """The tiers of PgBouncer, by name."""
        if self.central is None:
            return "direct"
        return "sidecars and central" if self.sidecar else "central"

    @property
    def server_connections(self) -> int:
        """The connections on the server, at most."""
        return self._others + self.central.most if self.central else self.direct

    @property
    def needed(self) -> int:
        """Connections on the server that the target needs."""
        return self._others + self.central.needed if self.central else self.direct

    @property
    def _others(self) -> int:
        return self.deployment.fleet.other_connections

    @property
    def fits(self) -> bool:
        """Return True if the server's limit suffices and the target is met."""
        return self.needed <= self.deployment.room.usable and (self.central is None or self.central.is_enough)


def plan(
    process: ProcessAdvice,
    deployment: Deployment,
    capacity: Capacity | None = None,
    sizes: Iterable[int] = WEB_PROCESSES,
) -> list[Row]:
    """Return a plan for several numbers of web processes; the workers stay the same.

    All tiers of PgBouncer together meet the target. Sidecars are added if more clients would connect than one PgBouncer
    process can serve: each bundles the clients of its host.
    """
    return [_row(process, deployment, capacity or Capacity(), size) for size in sizes]


def _row(process: ProcessAdvice, deployment: Deployment, capacity: Capacity, web_processes: int) -> Row:
    fleet = deployment.fleet
    hosts, clients = ceil(web_processes / fleet.processes), web_processes * process.most
    direct = clients + fleet.other_connections
    if direct <= deployment.room.usable:
        return Row(web_processes, hosts, direct, None, None, deployment)
    demand = deployment.transactions.demand_of(process.demand)
    sidecar = None
    if clients > capacity.clients:
        demand = replace(demand, target=demand.target.split(2))
        sidecar = _sidecars(demand, hosts, fleet.processes, process.most)
        clients = sidecar.most
    total = demand.times(web_processes)
    instances = capacity.instances(clients, total.load.rate_per_s * total.burst)
    central = bouncers(total, clients=clients, room=deployment.room_for_web, instances=instances)
    return Row(web_processes, hosts, direct, sidecar, central, deployment)


def _sidecars(demand: Demand, hosts: int, processes: int, each: int) -> Bouncers:
    clients = hosts * processes * each
    return bouncers(demand.times(hosts * processes), clients=clients, room=clients, instances=hosts)
