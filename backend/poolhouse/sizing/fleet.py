"""The connections of the whole fleet compared with the server's limit, and the sizes of PgBouncer."""

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from poolhouse.formatting import counted, duration
from poolhouse.sizing.process import ProcessAdvice, Setting
from poolhouse.sizing.queue import Demand, Holds, Load, pool_of

MONITOR_CONNECTIONS = 1
# From this share on, a deployment that starts new processes before it stops the old ones may exceed the limit.
TIGHT_SHARE = 0.8
# Room for consoles, for both generations of processes during a deployment, and for clients that are spread unevenly.
CLIENT_MARGIN = 1.25


@dataclass(frozen=True)
class Fleet:
    """The processes of a deployment."""

    hosts: int = 1
    processes: int = 1
    """web processes on each host"""
    workers: int = 0
    worker_concurrency: int = 1

    @property
    def web_processes(self) -> int:
        """Web processes on all hosts."""
        return self.hosts * self.processes

    @property
    def other_connections(self) -> int:
        """The connections of workers (whose main process may connect too), of beat and of the monitor."""
        celery = self.workers * (self.worker_concurrency + 1) + 1 if self.workers else 0
        return celery + MONITOR_CONNECTIONS


@dataclass(frozen=True)
class Room:
    """The connection limit of the server."""

    max_connections: int
    reserved: int

    @property
    def usable(self) -> int:
        """The connections that ordinary roles can have."""
        return self.max_connections - self.reserved


@dataclass(frozen=True)
class Transactions:
    """The transactions of a checkout, as PgBouncer's transaction mode sees them."""

    each: int = 1
    """transactions per checkout; in autocommit, each statement is one"""
    mean_s: float | None = None
    """None: as long as the whole checkout, the worst case"""

    def demand_of(self, demand: Demand) -> Demand:
        """Return the demand on PgBouncer that follows from the demand on a pool."""
        holds = demand.load.holds
        mean_s = holds.mean_s / self.each if self.mean_s is None else self.mean_s
        load = Load(demand.load.rate_per_s * self.each, Holds(mean_s, holds.cv2))
        return Demand(load, demand.target, demand.burst)


@dataclass(frozen=True)
class Deployment:
    """A fleet, its server's limit and its transactions."""

    fleet: Fleet
    room: Room
    transactions: Transactions = Transactions()

    @property
    def room_for_web(self) -> int:
        """The connections that are left for the web."""
        return max(0, self.room.usable - self.fleet.other_connections)


@dataclass(frozen=True)
class Bouncers:
    """PgBouncer processes with the same settings that share a load."""

    # A reserve pool would open after reserve_pool_timeout, seconds of waiting. The main pool covers bursts: it opens
    # connections when they are needed, and closes idle ones.
    reserve_pool_size: ClassVar[int] = 0

    demand: Demand
    """on each process"""
    instances: int
    default_pool_size: int
    max_client_conn: int
    clients: int
    """of all processes together"""
    needed: int
    """server connections of all processes together that the target needs"""

    @property
    def max_db_connections(self) -> int:
        """The most server connections of each process."""
        return self.default_pool_size + self.reserve_pool_size

    @property
    def most(self) -> int:
        """The most server connections of all processes together."""
        return self.instances * self.max_db_connections

    @property
    def is_enough(self) -> bool:
        """Return True if the needed connections are usable."""
        return self.most >= self.needed

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The settings for pgbouncer.ini, each with its reason."""
        return (
            Setting("default_pool_size", self.default_pool_size, self._why_size()),
            Setting(
                "reserve_pool_size",
                self.reserve_pool_size,
                "opened only after a client has waited for reserve_pool_timeout (5 s), too late for a burst",
            ),
            Setting("max_db_connections", self.max_db_connections, "the most connections that this PgBouncer opens"),
            Setting(
                "max_client_conn",
                self.max_client_conn,
                f"{self.clients:,} clients{f' of {self.instances}' if self.instances > 1 else ''} and a quarter more "
                "for consoles and deployments; raise its limit of open files above this",
            ),
        )

    def _why_size(self) -> str:
        load, burst, share = self.demand.load, self.demand.burst, self.demand.target.share
        text = f"{load.rate_per_s:,.4g} transactions/s × {duration(load.holds.mean_s)} = {load.in_use:.3g} in use"
        if burst > 1:
            text += f", {load.in_use * burst:.3g} in a burst of {burst:g} × the load"
        if not self.default_pool_size:
            return text
        full = pool_of(load.times(burst), self.default_pool_size)
        wait = f"is {duration(full.wait_s(share))}" if full.is_stable else "grows without bound"
        return f"{text}; p{share * 100:g} wait of the transactions{' then' if burst > 1 else ''} {wait}"


def bouncers(demand: Demand, *, clients: int, room: int, instances: int = 1) -> Bouncers:
    """Return PgBouncer's sizes.

    Args:
        demand: the load of all clients together, and its target.
        clients: the most clients connected at once, to all instances together.
        room: the most connections that all instances together may open.
        instances: how many PgBouncer processes share demand, clients and room.
    """
    part, served = demand.times(1 / instances), ceil(clients / instances)
    # A client uses no more than one connection.
    needed = min(served, part.in_burst.connections)
    return Bouncers(
        demand=part,
        instances=instances,
        default_pool_size=min(needed, room // instances),
        max_client_conn=ceil(served * CLIENT_MARGIN),
        clients=clients,
        needed=needed * instances,
    )


@dataclass(frozen=True)
class FleetAdvice:
    """The advice for a fleet."""

    deployment: Deployment
    kept: int
    """connections opened at the start"""
    most: int
    """the most connections"""
    bouncer: Bouncers
    """the sizes of one PgBouncer in transaction mode, needed or not"""
    verdict: str
    """direct, tight, due (PgBouncer is needed), or too small (it does not suffice)"""
    reason: str


def advise_fleet(process: ProcessAdvice, deployment: Deployment) -> FleetAdvice:
    """Compare a fleet of processes with the advised pool with the server's limit."""
    fleet, room = deployment.fleet, deployment.room
    others, clients = fleet.other_connections, fleet.web_processes * process.most
    demand = deployment.transactions.demand_of(process.demand).times(fleet.web_processes)
    bouncer = bouncers(demand, clients=clients, room=deployment.room_for_web)
    kept, most = fleet.web_processes * process.least + others, clients + others
    verdict = _verdict(most, room, bouncer)
    reason = {
        "direct": f"PgBouncer is not needed: the fleet can open {most:,} of the {room.usable:,} usable connections",
        "tight": f"PgBouncer is needed soon: the fleet can open {most:,} of the {room.usable:,} usable connections, "
        f"more than {TIGHT_SHARE:.0%}, and old and new processes of a deployment together may exceed them",
        "due": f"PgBouncer is needed: the fleet can open {most:,} connections and {room.usable:,} are usable; with "
        f"PgBouncer, {counted(bouncer.most + others, 'connection')} suffice",
        "too small": f"PgBouncer is needed but does not suffice: the fleet can open {most:,} connections, the target "
        f"needs {bouncer.needed + others:,} even with PgBouncer, and {room.usable:,} are usable: raise "
        "max_connections, shorten transactions, or split the load",
    }[verdict]
    return FleetAdvice(deployment, kept, most, bouncer, verdict, reason)


def _verdict(most: int, room: Room, bouncer: Bouncers) -> str:
    if most <= room.usable:
        return "direct" if most <= TIGHT_SHARE * room.usable else "tight"
    return "due" if bouncer.is_enough else "too small"


def connections_by_cores(cores: int, spindles: int = 1) -> int:
    """Return how many connections should be active at once, by the rule of thumb of PostgreSQL's wiki."""
    return cores * 2 + spindles
