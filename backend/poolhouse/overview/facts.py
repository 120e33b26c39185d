"""What all sources know at one moment: the processes' reports joined with the servers' connections and PgBouncer."""

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

from poolhouse.identity import process_of
from poolhouse.overview.fleet import Group, services
from poolhouse.overview.sources import PGBOUNCER, REPORTS, ServerAnswers, Unreachable
from poolhouse.reports.report import ProcessReport
from poolhouse.servers.pgbouncer import PgBouncer
from poolhouse.servers.server import ServerConnection, ServerFacts, TimescaleDB

FLEET = "fleet"


@dataclass(frozen=True)
class Facts:
    """Everything known at one moment. What an unreachable source would know is empty or None."""

    taken_at: float
    processes: list[ProcessReport]
    servers: list[ServerAnswers]
    """the servers that answered, that of the default alias first"""
    unreachable: list[Unreachable] = field(default_factory=list)
    pgbouncer: PgBouncer | None = None
    """None as well if it is not configured"""
    of_other_versions: int = 0
    """processes whose reports have another version's format"""
    silent_s: dict[str, float | None] = field(default_factory=dict)
    """seconds since the last report of each service of FLEET that has no reporting process; None: over a day"""

    @property
    def server(self) -> ServerFacts | None:
        """The answers of the first server."""
        return self.servers[0].facts if self.servers else None

    @property
    def timescaledb(self) -> TimescaleDB | None:
        """TimescaleDB in the first server's database."""
        return self.servers[0].timescaledb if self.servers else None

    @property
    def connections(self) -> list[ServerConnection]:
        """The connections on all servers that answered."""
        return [connection for server in self.servers for connection in server.facts.connections]

    @cached_property
    def knows_processes(self) -> bool:
        """Return True if the reports could be read: only then a process without a report is known to be missing."""
        return not any(one.source == REPORTS for one in self.unreachable)

    @cached_property
    def is_pgbouncer_away(self) -> bool:
        """Return True if PgBouncer did not answer, so that its server connections are unknown."""
        return any(one.source == PGBOUNCER for one in self.unreachable)

    def owner_of(self, connection: ServerConnection) -> str | None:
        """Return the holder of a server connection: PgBouncer or a reporting process; None if it is unexplained.

        PgBouncer comes first, since its connections carry the name of their current or last client. If PgBouncer did
        not answer, both are named.
        """
        if self.pgbouncer and self.pgbouncer.holds(connection):
            return PGBOUNCER
        name = process_of(connection.application)
        if name not in self._process_names:
            return None
        return either_holder(name) if self.is_pgbouncer_away else name

    @cached_property
    def _process_names(self) -> set[str]:
        return {process.name for process in self.processes}

    def owned_by(self, owner: str | None, alias: str | None = None) -> list[ServerConnection]:
        """Return the connections that PgBouncer or a process holds or may hold; with None, the unexplained ones.

        Args:
            owner: PgBouncer or the name of a process; None: no known holder.
            alias: only the connections on the server of this alias.
        """
        return self._owned[owner] if alias is None else self._owned_on[owner, self.server_of(alias)]

    def server_of(self, alias: str) -> str:
        """Return the name of an alias' server; empty if it has not answered or this process does not have the alias."""
        return next((server.name for server in self.servers if alias in server.aliases), "")

    @cached_property
    def _owned_on(self) -> defaultdict[tuple[str | None, str], list[ServerConnection]]:
        found: defaultdict[tuple[str | None, str], list[ServerConnection]] = defaultdict(list)
        for server in self.servers:
            for connection in server.facts.connections:
                owner = self.owner_of(connection)
                is_unsure = self.is_pgbouncer_away and owner is not None
                found[process_of(connection.application) if is_unsure else owner, server.name].append(connection)
        return found

    @cached_property
    def _owned(self) -> defaultdict[str | None, list[ServerConnection]]:
        found: defaultdict[str | None, list[ServerConnection]] = defaultdict(list)
        for (owner, _), connections in self._owned_on.items():
            found[owner] += connections
        return found

    @cached_property
    def services(self) -> list[Group]:
        """The processes grouped by service, with their sums."""
        return services(self.processes)

    @property
    def fleet(self) -> Group:
        """All processes as one group."""
        return Group(FLEET, self.processes)


def either_holder(process: str) -> str:
    """Write that a process or PgBouncer holds a connection."""
    return f"{process} or {PGBOUNCER}"
