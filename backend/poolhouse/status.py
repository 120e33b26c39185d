"""The merged view: what the processes report, joined with what the server sees."""

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import redis
from django.db import DEFAULT_DB_ALIAS

from poolhouse.driver import driver_errors
from poolhouse.identity import current
from poolhouse.report import ProcessReport
from poolhouse.server import Capacity, ServerConnection, capacity, client_connections, monitor_cursor
from poolhouse.store import store

SCHEMA_VERSION = 1
LEVELS = ("ok", "warning", "critical")
WARNING_SHARE = 0.80
CRITICAL_SHARE = 0.95


@dataclass(frozen=True)
class Unreachable:
    """A source that gave no answer."""

    source: str
    reason: str
    level: str = "warning"
    """what its silence means for the verdict"""


@dataclass(frozen=True)
class Status:
    """Everything known at one moment. What a source could not tell is empty or None, and that source is named."""

    taken_at: float
    processes: list[ProcessReport]
    server: Capacity | None
    connections: list[ServerConnection]
    unreachable: list[Unreachable] = field(default_factory=list)

    def connections_of(self, process: ProcessReport) -> list[ServerConnection]:
        """The server connections that carry a process's name."""
        return [connection for connection in self.connections if connection.application == process.name]

    @property
    def unexplained(self) -> list[ServerConnection]:
        """Server connections that no reporting process owns."""
        owners = {process.name for process in self.processes}
        return [connection for connection in self.connections if connection.application not in owners]

    @property
    def by_application_and_state(self) -> Counter[tuple[str, str]]:
        """How many server connections each application has in each state."""
        return Counter((connection.application, connection.state) for connection in self.connections)

    @property
    def verdict(self) -> tuple[str, list[str]]:
        """Judge: (ok, warning or critical; the reasons for anything but ok)."""
        findings = [(one.level, f"{one.source} is unreachable: {one.reason}") for one in self.unreachable]
        if self.server:
            usable = self.server.max_connections - self.server.reserved
            share = self.server.used / usable
            if share >= WARNING_SHARE:
                level = "critical" if share >= CRITICAL_SHARE else "warning"
                findings.append((level, f"{self.server.used} of the {usable} usable server connections are open"))
        findings.sort(key=lambda finding: LEVELS.index(finding[0]), reverse=True)
        return findings[0][0] if findings else "ok", [reason for _, reason in findings]

    def as_document(self) -> dict[str, Any]:
        """The status as JSON data; its shape is described in docs/poolhouse.md and numbered by `schema`."""
        level, reasons = self.verdict
        return {
            "schema": SCHEMA_VERSION,
            "taken_at": self.taken_at,
            "verdict": {"level": level, "reasons": reasons},
            "processes": [
                {**asdict(process), "server_connections": [c.pid for c in self.connections_of(process)]}
                for process in self.processes
            ],
            "server": self.server and {**asdict(self.server), "room_left": self.server.room_left},
            "connections_by_application_and_state": [
                {"application": application, "state": state, "connections": count}
                for (application, state), count in sorted(self.by_application_and_state.items())
            ],
            "connections": [asdict(connection) for connection in self.connections],
            "unexplained": [connection.pid for connection in self.unexplained],
            "unreachable": [asdict(source) for source in self.unreachable],
        }


def take_status(alias: str = DEFAULT_DB_ALIAS) -> Status:
    """Ask every source once, each within POOLHOUSE["MONITOR_TIMEOUT_S"]; never raises for one that is away."""
    unreachable: list[Unreachable] = []
    processes = _read_reports(unreachable)
    room, open_connections = _ask_server(alias, unreachable)
    return Status(time.time(), processes, room, open_connections, unreachable)


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


def _ask_server(alias: str, unreachable: list[Unreachable]) -> tuple[Capacity | None, list[ServerConnection]]:
    try:
        with monitor_cursor(alias) as cursor:
            return capacity(cursor), client_connections(cursor)
    except driver_errors(alias) as error:
        # It refuses the monitor as it refuses everyone: down, or full.
        unreachable.append(Unreachable(f"database server ({alias})", " ".join(str(error).split()), "critical"))
        return None, []
