"""The merged view: what the processes report, joined with what the server and PgBouncer see."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import redis
from django.db import DEFAULT_DB_ALIAS

from poolhouse.conf import options
from poolhouse.driver import driver_errors
from poolhouse.human import counted, duration
from poolhouse.identity import current
from poolhouse.overview.fleet import Group, services
from poolhouse.process.activity import RECENT_S
from poolhouse.reports.report import ProcessReport
from poolhouse.reports.store import store
from poolhouse.servers import pgbouncer, server
from poolhouse.servers.bounded import Cursor
from poolhouse.servers.pgbouncer import PgBouncer, console_cursor
from poolhouse.servers.server import HIDDEN, ServerConnection, ServerFacts, TimescaleDB, ask_as_monitor

SCHEMA_VERSION = 2
LEVELS = ("ok", "warning", "critical")
FLEET = "fleet"
PGBOUNCER = "PgBouncer"


@dataclass(frozen=True)
class Unreachable:
    """A source that gave no answer."""

    source: str
    reason: str
    level: str = "warning"
    """what its silence means for the verdict"""


class Finding(NamedTuple):
    """Something that was looked at, and how it is."""

    level: str
    reason: str


@dataclass(frozen=True)
class Status:
    """Everything known at one moment. What a source could not tell is empty or None, and that source is named."""

    taken_at: float
    processes: list[ProcessReport]
    server: ServerFacts | None
    unreachable: list[Unreachable] = field(default_factory=list)
    pgbouncer: PgBouncer | None = None
    """None as well where it is not configured"""
    timescaledb: TimescaleDB | None = None
    """None as well where the database does not have it, or nobody asked"""

    @property
    def connections(self) -> list[ServerConnection]:
        """The server's connections, as far as it could be asked."""
        return self.server.connections if self.server else []

    def owner_of(self, connection: ServerConnection) -> str | None:
        """Name who holds a server connection: PgBouncer, or a process that reports; None: unexplained.

        PgBouncer comes first, since its connections carry the name of the client that they serve, or served last.
        """
        if self.pgbouncer and self.pgbouncer.holds(connection):
            return PGBOUNCER
        return connection.application if connection.application in self._process_names else None

    @cached_property
    def _process_names(self) -> set[str]:
        return {process.name for process in self.processes}

    def owned_by(self, owner: str | None) -> list[ServerConnection]:
        """The server connections that PgBouncer or a process holds; with None, those that nobody explains."""
        return [connection for connection in self.connections if self.owner_of(connection) == owner]

    @cached_property
    def services(self) -> list[Group]:
        """The processes by service."""
        return services(self.processes)

    @property
    def fleet(self) -> Group:
        """All processes together."""
        return Group(FLEET, self.processes)

    @property
    def verdict(self) -> tuple[str, list[str]]:
        """Judge: (ok, warning or critical; the reasons for anything but ok)."""
        found = judge(self.findings())
        return found[0].level if found else "ok", [finding.reason for finding in found]

    def findings(self) -> Iterator[Finding]:
        """Tell how things are, as far as they can be other than ok."""
        for one in self.unreachable:
            yield Finding(one.level, f"{one.source} is unreachable: {one.reason}")
        for process in self.processes:
            yield from _suspicions(process)
        for service in self.services:
            yield from _queues(service)
        if self.server:
            yield from self._server_findings(self.server)

    def _server_findings(self, server: ServerFacts) -> Iterator[Finding]:
        used, usable = server.used, server.capacity.usable
        warning, critical = options().UTILISATION_WARNING_PERCENT, options().UTILISATION_CRITICAL_PERCENT
        level = level_of(100 * used / max(1, usable), warning, critical)
        yield Finding(level, f"{used} of the {usable} usable server connections are open")
        if hidden := sum(connection.state == HIDDEN for connection in self.connections):
            they_are = f"{hidden} server connections are hidden"
            yield Finding("warning", f"{they_are}: the monitor's role is not granted pg_monitor")

    def as_document(self) -> dict[str, Any]:
        """The status as JSON data; its shape is described in docs/poolhouse.md and numbered by `schema`."""
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
            "fleet": self.fleet.as_document(),
            **self._server_document(),
            "unexplained": [connection.pid for connection in self.owned_by(None)],
            "pgbouncer": self.pgbouncer and asdict(self.pgbouncer),
            "timescaledb": self.timescaledb and asdict(self.timescaledb),
            "unreachable": [asdict(source) for source in self.unreachable],
        }

    def _server_document(self) -> dict[str, Any]:
        if not (facts := self.server):
            return dict.fromkeys(("server", "longest_transaction")) | {
                key: [] for key in ("connection_groups", "connections", "blocks", "idle_in_transaction")
            }
        room = {"usable": facts.capacity.usable, "used": facts.used, "room_left": facts.room_left}
        return {
            "server": asdict(facts.capacity) | room,
            "connection_groups": [
                {**group._asdict(), "connections": count} for group, count in sorted(facts.groups.items())
            ],
            "connections": [{**asdict(one), "owner": self.owner_of(one)} for one in facts.connections],
            "blocks": [asdict(block) for block in facts.blocks],
            "idle_in_transaction": [connection.pid for connection in facts.idle_in_transaction],
            "longest_transaction": facts.longest_transaction and facts.longest_transaction.pid,
        }


def judge(findings: Iterable[Finding]) -> list[Finding]:
    """Give what is not ok, the worst first."""
    bad = [finding for finding in findings if finding.level != "ok"]
    return sorted(bad, key=lambda finding: LEVELS.index(finding.level), reverse=True)


def level_of(value: float, warning_from: float, critical_from: float) -> str:
    """Give the level of a figure that is the worse the higher it is."""
    if value >= critical_from:
        return "critical"
    return "warning" if value >= warning_from else "ok"


def _suspicions(process: ProcessReport) -> Iterator[Finding]:
    for pool in process.pools:
        if pool.suspects:
            longest = pool.suspects[0]
            yield Finding(
                "warning",
                f"{process.name} holds {counted(len(pool.suspects), 'connection')} for too long: "
                f"{duration(longest.held_s)} by {longest.holder}",
            )


def _queues(service: Group) -> Iterator[Finding]:
    if service.waiting:
        yield Finding("warning", f"{counted(service.waiting, 'caller')} of {service.name} waiting for a connection")
    if timeouts := service.recent().timeouts:
        refused = f"{counted(timeouts, 'caller')} of {service.name} got no connection in time"
        yield Finding("warning", f"{refused} in the last {RECENT_S // 60} minutes")


def _process_document(process: ProcessReport) -> dict[str, Any]:
    return {
        **vars(process),
        "pools": [pool.as_document() for pool in process.pools],
        "activity": [{"alias": one.alias, **one.as_figures()} for one in process.activity],
        "recent": [{"alias": one.alias, **one.as_figures()} for one in process.recent],
    }


def take_status(alias: str = DEFAULT_DB_ALIAS, *, detailed: bool = True) -> Status:
    """Ask every source once, each within POOLHOUSE["MONITOR_TIMEOUT_S"]; never raises for one that is away.

    Args:
        alias: of the database whose server is asked.
        detailed: ask also what takes longer the more there is of it: TimescaleDB's tables.

    """
    unreachable: list[Unreachable] = []
    processes = _read_reports(unreachable)
    facts, extension = _ask_server(alias, unreachable, detailed=detailed)
    pooler = _ask_pgbouncer(alias, unreachable)
    return Status(time.time(), processes, facts, unreachable, pooler, extension)


def _read_reports(unreachable: list[Unreachable]) -> list[ProcessReport]:
    reports = store()
    if reports is None:
        unreachable.append(Unreachable("process reports", "POOLHOUSE['REDIS_URL'] is not set"))
        return []
    try:
        return [report for report in reports.read_all() if report.name != current().name]  # not the observer
    except redis.RedisError as error:
        unreachable.append(Unreachable("process reports", f"Redis: {error}"))
        return []


def _ask_server(
    alias: str, unreachable: list[Unreachable], *, detailed: bool
) -> tuple[ServerFacts | None, TimescaleDB | None]:
    source = f"database server ({alias})"
    try:
        (facts, extension, trouble), refusal = ask_as_monitor(alias, partial(_facts_of, alias, detailed=detailed))
    except driver_errors(alias) as error:  # it refuses the monitor as it refuses everyone: down, or full
        unreachable.append(Unreachable(source, _one_line(error), "critical"))
        return None, None
    if refusal:
        unreachable.append(Unreachable(f"{source} as {options().MONITOR_USER}", refusal))
    if trouble:
        unreachable.append(Unreachable("TimescaleDB", trouble))
    return facts, extension


def _facts_of(alias: str, cursor: Cursor, *, detailed: bool) -> tuple[ServerFacts, TimescaleDB | None, str]:
    """Ask the server, and its extension; the first answer stays where the second is not given, with the reason."""
    facts = server.ask(cursor)
    try:
        return facts, server.timescaledb(cursor) if detailed else None, ""
    except driver_errors(alias) as error:
        return facts, None, _one_line(error)


def _ask_pgbouncer(alias: str, unreachable: list[Unreachable]) -> PgBouncer | None:
    if not options().PGBOUNCER_URL:
        return None
    try:
        with console_cursor(alias) as cursor:
            return pgbouncer.ask(cursor)
    except driver_errors(alias) as error:
        reason = _one_line(error)
    except KeyError as column:
        reason = f"it has no column {column}, and is older than 1.18"
    unreachable.append(Unreachable(PGBOUNCER, reason))
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
