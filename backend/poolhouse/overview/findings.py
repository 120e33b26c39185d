"""The verdict: what is to be said of what was seen, and how bad it is."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from poolhouse.conf import options
from poolhouse.human import counted, duration
from poolhouse.overview.fleet import Group
from poolhouse.overview.sources import ServerLook
from poolhouse.process.activity import NOW_S, RECENT_S, Activity
from poolhouse.reports.report import ProcessReport
from poolhouse.servers.pgbouncer import PgBouncer
from poolhouse.servers.refusals import way_past_pgbouncer
from poolhouse.servers.server import HIDDEN, ServerFacts

if TYPE_CHECKING:  # it judges by these
    from poolhouse.overview.status import Status

LEVELS = ("ok", "warning", "critical")
OF_LATE = f"in the last {RECENT_S // 60} minutes"
# As `poolhouse.identity` makes them; the monitor's own are those of others who look.
PROCESS_NAME = re.compile(r"(?!monitor@)[A-Za-z0-9_.-]+@[^@]+:\d+")


class Finding(NamedTuple):
    """Something that was looked at, and how it is."""

    level: str
    reason: str


def judge(findings: Iterable[Finding]) -> list[Finding]:
    """Give what is not ok, the worst first."""
    bad = [finding for finding in findings if finding.level != "ok"]
    return sorted(bad, key=lambda finding: LEVELS.index(finding.level), reverse=True)


def level_of(value: float, warning_from: float, critical_from: float = math.inf) -> str:
    """Give the level of a figure that is the worse the higher it is."""
    if value >= critical_from:
        return "critical"
    return "warning" if value >= warning_from else "ok"


def findings_of(status: "Status") -> Iterator[Finding]:
    """Tell how things are, as far as they can be other than ok."""
    for one in status.unreachable:
        yield Finding(one.level, f"{one.source} is {one.state}: {one.reason}")
    if status.knows_processes:
        yield from _missing(status)
        yield from _namesakes(status.processes)
    for process in status.processes:
        yield from _suspicions(process)
    for service in status.services:
        yield from _lending(service)
    for server in status.servers:
        yield from _server(server, of_several=len(status.servers) > 1)
    if status.pgbouncer:
        yield from _pgbouncer(status.pgbouncer)


# Who reports.


def _missing(status: "Status") -> Iterator[Finding]:
    found = Counter(process.service for process in status.processes)
    for service, (expected, _) in options().FLEET.items():
        if found[service]:
            few = "warning" if found[service] < expected else "ok"
            yield Finding(few, f"{found[service]} of {counted(expected, 'process', 'processes')} of {service} report")
        elif expected:
            yield _silent(service, expected, status.silent_s.get(service))
    if not status.processes and (named := [one for one in status.connections if PROCESS_NAME.match(one.application)]):
        they = counted(len(named), "server connection")
        yield Finding("warning", f"no process reports its pools, though {they} have the name of one")
    if others := status.of_other_versions:
        yield Finding("warning", f"{counted(others, 'report')} of another version of poolhouse, not understood here")


def _silent(service: str, expected: int, silent_s: float | None) -> Finding:
    none = f"none of {counted(expected, 'process', 'processes')} of {service} reports"
    if silent_s is None:  # never started, perhaps on purpose
        return Finding("warning", f"{none}, and none has for a day")
    level = "critical" if silent_s >= options().FLEET_GRACE_S else "warning"
    return Finding(level, f"{none}, for {duration(silent_s)}")


def _namesakes(processes: list[ProcessReport]) -> Iterator[Finding]:
    by_name: dict[str, list[ProcessReport]] = defaultdict(list)
    for process in processes:
        by_name[process.name].append(process)
    for name, ones in by_name.items():
        # The report of one that was killed may still be there when its successor, with the same pid, has begun.
        begun_at = max(one.started_at for one in ones)
        alive = sum(one.reported_at > begun_at for one in ones)
        if alive > 1:
            yield Finding("warning", f"{alive} processes have the name {name}: whose a connection is cannot be told")


# How they fare.


def _suspicions(process: ProcessReport) -> Iterator[Finding]:
    for pool in process.pools:
        if pool.suspects:
            longest = pool.suspects[0]
            yield Finding(
                "warning",
                f"{process.name} holds {counted(len(pool.suspects), 'connection')} for too long: "
                f"{duration(longest.held_s)} by {longest.holder}",
            )


def _lending(service: Group) -> Iterator[Finding]:
    chosen = options()
    if service.waiting:
        yield Finding("warning", f"{counted(service.waiting, 'caller')} of {service.name} waiting for a connection")
    for alias in sorted({pool.alias for pool in service.pools}):
        recent, whose = service.recent(alias), f"of {service.name}{service.alias_note(alias)}"
        if recent.timeouts:
            yield _timeouts(recent, whose)
        if recent.connect_errors:
            failed = f"{counted(recent.connect_errors, 'connection')} {whose} could not be opened {OF_LATE}"
            is_without = not any(pool.open for pool in service.pools if pool.alias == alias)
            yield Finding("critical", f"{failed}, and none is open") if is_without else Finding("warning", failed)
        if recent.wait and recent.wait.count >= chosen.SAMPLE_MIN and (p95_s := recent.wait.quantile_s(0.95)):
            level = level_of(p95_s * 1000, chosen.WAIT_WARNING_MS, chosen.WAIT_CRITICAL_MS)
            yield Finding(level, f"5 of 100 callers {whose} waited {duration(p95_s)} or longer {OF_LATE}")


def _timeouts(recent: Activity, whose: str) -> Finding:
    """Judge callers that got an error for a connection: users see it now, or saw it a while ago."""
    they = f"{counted(recent.timeouts, 'caller')} {whose} got no connection in time {OF_LATE}"
    if not recent.timeouts_now:
        return Finding("warning", they)
    return Finding("critical", f"{they}, {recent.timeouts_now:,} of them in the last {NOW_S} s")


# What the servers say.


def _server(server: ServerLook, *, of_several: bool) -> Iterator[Finding]:
    facts, where = server.facts, f" on {server.name}" if of_several else ""
    warning, critical = options().UTILISATION_WARNING_PERCENT, options().UTILISATION_CRITICAL_PERCENT
    used, usable = facts.used, facts.capacity.usable
    if facts.capacity.through_pooler:
        remedy = way_past_pgbouncer(server.name) or "POOLHOUSE['DIRECT'] must lead to the server itself"
        yield Finding("warning", f"the monitor reaches database server ({server.name}) through PgBouncer; {remedy}")
    level = level_of(100 * used / max(1, usable), warning, critical)
    yield Finding(level, f"{used} of the {usable} usable server connections{where} are open")
    for limit in facts.limits:
        used = facts.used_of(limit)
        level = level_of(100 * used / max(1, limit.connections), warning, critical)
        yield Finding(
            level, f"{used} of the {limit.connections} connections of {limit.kind} {limit.name}{where} are open"
        )
    if hidden := sum(connection.state == HIDDEN for connection in facts.connections):
        they_are = f"{hidden} server connections{where} are hidden"
        yield Finding("warning", f"{they_are}: the monitor's role is not granted pg_monitor")
    yield from _locks(facts, where)


def _locks(facts: ServerFacts, where: str) -> Iterator[Finding]:
    if facts.blocks:
        longest = facts.blocks[0]
        level = level_of(longest.wait_s, options().BLOCKED_WARNING_S)
        they = counted(len({block.pid for block in facts.blocks}), "session")
        by = f"by {longest.blocker or 'a session without a name'}, pid {longest.blocker_pid}"
        yield Finding(level, f"{they}{where} blocked by others, the longest for {duration(longest.wait_s)} {by}")
    if facts.idle_in_transaction:
        longest_idle = facts.idle_in_transaction[0]
        level = level_of(longest_idle.state_age_s or 0, options().IDLE_IN_TRANSACTION_WARNING_S)
        who = f"{longest_idle.application or 'a session without a name'}, pid {longest_idle.pid},"
        yield Finding(level, f"{who}{where} has been idle in a transaction for {duration(longest_idle.state_age_s)}")


def _pgbouncer(pooler: PgBouncer) -> Iterator[Finding]:
    for pool in pooler.pools:
        if pool.clients_waiting:
            level = level_of(
                pool.longest_wait_s, options().PGBOUNCER_WAIT_WARNING_S, options().PGBOUNCER_WAIT_CRITICAL_S
            )
            they = counted(pool.clients_waiting, "client")
            yield Finding(
                level,
                f"{they} of PgBouncer waiting for a connection to {pool.database}, "
                f"the longest for {duration(pool.longest_wait_s)}",
            )
