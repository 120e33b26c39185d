"""The status: the processes' reports joined with the connections on the servers and PgBouncer."""

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from poolhouse.identity import process_of
from poolhouse.overview.findings import LEVELS, Finding, findings_of, judge
from poolhouse.overview.fleet import Group, services
from poolhouse.overview.sources import PGBOUNCER, REPORTS, ServerAnswers, Unreachable, query_all
from poolhouse.reports.report import ProcessReport
from poolhouse.servers.pgbouncer import PgBouncer
from poolhouse.servers.server import ServerConnection, ServerFacts, TimescaleDB

__all__ = ["LEVELS", "PGBOUNCER", "Finding", "ServerAnswers", "Status", "Unreachable", "take_status"]

SCHEMA_VERSION = 3
FLEET = "fleet"


@dataclass(frozen=True)
class Status:
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

    @property
    def verdict(self) -> tuple[str, list[str]]:
        """The level (ok, warning or critical), and the reasons for anything but ok."""
        found = judge(self.findings())
        return found[0].level if found else "ok", [finding.reason for finding in found]

    def findings(self) -> Iterator[Finding]:
        """Yield the findings, those that are ok included."""
        return findings_of(self)

    def as_document(self) -> dict[str, Any]:
        """Return the status as JSON data; docs/app/json.md describes its shape, which `schema` numbers."""
        level, reasons = self.verdict
        return {
            "schema": SCHEMA_VERSION,
            "taken_at": self.taken_at,
            "verdict": {"level": level, "reasons": reasons},
            "processes": [
                {**_process_document(process), "server_connections": [one.pid for one in self.owned_by(process.name)]}
                for process in self.processes
            ],
            "services": [{"service": service.name, **service.as_document()} for service in self.services],
            "fleet": self.fleet.as_document() if self.knows_processes else None,
            "silent_s": self.silent_s,
            "of_other_versions": self.of_other_versions,
            "servers": [self._server_document(server) for server in self.servers],
            "connections": [
                {"server": server.name, **asdict(one), "owner": self.owner_of(one)}
                for server in self.servers
                for one in server.facts.connections
            ],
            "pgbouncer": self.pgbouncer and asdict(self.pgbouncer),
            "unreachable": [asdict(source) for source in self.unreachable],
        }

    def _server_document(self, server: ServerAnswers) -> dict[str, Any]:
        facts = server.facts
        return {
            "server": server.name,
            "aliases": list(server.aliases),
            **asdict(facts.capacity),
            "usable": facts.capacity.usable,
            "used": facts.used,
            "room_left": facts.room_left,
            "limits": [{**asdict(limit), "used": facts.used_of(limit)} for limit in facts.limits],
            "connection_groups": [
                {**group._asdict(), "connections": count} for group, count in sorted(facts.groups.items())
            ],
            "unexplained": [one.pid for one in self.owned_by(None, server.name)] if self.knows_processes else None,
            "blocks": [asdict(block) for block in facts.blocks],
            "idle_in_transaction": [connection.pid for connection in facts.idle_in_transaction],
            "longest_transaction": facts.longest_transaction and facts.longest_transaction.pid,
            "timescaledb": server.timescaledb and asdict(server.timescaledb),
        }


def either_holder(process: str) -> str:
    """Write that a process or PgBouncer holds a connection."""
    return f"{process} or {PGBOUNCER}"


def _process_document(process: ProcessReport) -> dict[str, Any]:
    return {
        **vars(process),
        "pools": [pool.as_document() for pool in process.pools],
        "activity": [{"alias": one.alias, **one.as_figures()} for one in process.activity],
        "recent": [{"alias": one.alias, **one.as_figures()} for one in process.recent],
    }


def take_status(alias: str | None = None, *, detailed: bool = True) -> Status:
    """Query every source once, each within POOLHOUSE["MONITOR_TIMEOUT_S"]; an unreachable one raises no error.

    Args:
        alias: the only database in the status; None: all PostgreSQL databases.
        detailed: query the sizes of hypertables as well, which takes longer the more chunks there are.
    """
    answers = query_all(alias, detailed=detailed)
    reports = answers.reports
    processes = reports.processes if alias is None else [_only(alias, process) for process in reports.processes]
    return Status(
        time.time(),
        processes,
        answers.servers,
        answers.unreachable,
        answers.pgbouncer,
        reports.of_other_versions,
        reports.silent_s,
    )


def _only(alias: str, process: ProcessReport) -> ProcessReport:
    """Return a report reduced to one alias."""
    return replace(
        process,
        pools=tuple(pool for pool in process.pools if pool.alias == alias),
        activity=tuple(one for one in process.activity if one.alias == alias),
        recent=tuple(one for one in process.recent if one.alias == alias),
    )
