"""The status: the facts of one moment, the findings on them and the verdict."""

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from poolhouse.overview.facts import Facts
from poolhouse.overview.findings import LEVELS, Finding, findings_of, judge
from poolhouse.overview.sources import PGBOUNCER, ServerAnswers, Unreachable, query_all
from poolhouse.reports.report import ProcessReport

__all__ = ["LEVELS", "PGBOUNCER", "Finding", "ServerAnswers", "Status", "Unreachable", "take_status"]

SCHEMA_VERSION = 3


class Status(Facts):
    """The facts with their verdict, and as a JSON document."""

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
