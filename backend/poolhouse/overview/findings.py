"""The findings on a status, each with its value, its threshold and what to do; the worst is the verdict."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from poolhouse.conf import options
from poolhouse.formatting import counted, duration, percent
from poolhouse.overview.facts import Facts
from poolhouse.overview.fleet import Group
from poolhouse.overview.sources import REPORTS, ServerAnswers
from poolhouse.process.activity import NOW_S, RECENT_S, Activity
from poolhouse.reports.report import ProcessReport
from poolhouse.servers.pgbouncer import PgBouncer
from poolhouse.servers.refusals import direct_remedy
from poolhouse.servers.server import HIDDEN, ServerFacts

LEVELS = ("ok", "warning", "critical")
PERIOD = f"over the last {RECENT_S // 60} min"
# As `poolhouse.identity` builds them. "monitor@..." is the name of other monitors, which do not report.
PROCESS_NAME = re.compile(r"(?!monitor@)[A-Za-z0-9_.-]+@[^@]+:\d+")
NO_NAME = "a session without a name"


class Finding(NamedTuple):
    """One judgement: its level and, as text, the value, the threshold and what to do."""

    level: str
    reason: str


def judge(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that are not ok, the worst first."""
    bad = [finding for finding in findings if finding.level != "ok"]
    return sorted(bad, key=lambda finding: LEVELS.index(finding.level), reverse=True)


def level_of(value: float, warning_from: float, critical_from: float = math.inf) -> str:
    """Return the level of a value that is worse the higher it is."""
    if value >= critical_from:
        return "critical"
    return "warning" if value >= warning_from else "ok"


def graded(  # noqa: PLR0913 - a value, its two thresholds and their texts
    text: str,
    value: float,
    warning_from: float,
    critical_from: float = math.inf,
    *,
    unit: Callable[[float], str],
    remedy: str,
) -> Finding:
    """Return the finding on a value that is worse the higher it is.

    Args:
        text: what was found, with the value.
        value: in the unit of the thresholds.
        warning_from: the value from which on it is a warning.
        critical_from: the value from which on it is critical.
        unit: writes a threshold with its unit.
        remedy: what to do.
    """
    level = level_of(value, warning_from, critical_from)
    threshold = critical_from if level == "critical" else warning_from
    return Finding(level, f"{text} ({level} at {unit(threshold)}): {remedy}")


def in_ms(value: float) -> str:
    """Write a threshold in milliseconds: 250 ms."""
    return f"{value:g} ms"


def in_s(value: float) -> str:
    """Write a threshold in seconds: 30 s."""
    return f"{value:g} s"


def in_percent(value: float) -> str:
    """Write a threshold in percent: 80 %."""
    return f"{value:g} %"


def findings_of(facts: Facts) -> Iterator[Finding]:
    """Yield the findings on the facts, those that are ok included."""
    for one in facts.unreachable:
        verb = "are" if one.source == REPORTS else "is"
        yield Finding(one.level, f"{one.source} {verb} {one.state}: {one.reason}")
    if facts.knows_processes:
        yield from _missing_processes(facts)
        yield from _shared_names(facts.processes)
    for process in facts.processes:
        yield from _leak_suspects(process)
    for service in facts.services:
        yield from _checkouts(service)
    for server in facts.servers:
        yield from _server(server, of_several=len(facts.servers) > 1)
    if facts.pgbouncer:
        yield from _pgbouncer(facts.pgbouncer)


# The processes that report.


def _missing_processes(facts: Facts) -> Iterator[Finding]:
    found = Counter(process.service for process in facts.processes)
    for service, (expected, _) in options().FLEET.items():
        if found[service]:
            few = "warning" if found[service] < expected else "ok"
            yield Finding(
                few,
                f"{service}: {found[service]} of {counted(expected, 'process', 'processes')} reporting "
                f"(warning below {expected}): start the others, or correct POOLHOUSE['FLEET']",
            )
        elif expected:
            yield _unreported_service(service, expected, facts.silent_s.get(service))
    if not facts.processes and (named := [one for one in facts.connections if PROCESS_NAME.match(one.application)]):
        they = counted(len(named), "server connection")
        carry = "carries" if len(named) == 1 else "carry"
        yield Finding(
            "warning", f"no process is reporting, but {they} {carry} a Poolhouse name: check POOLHOUSE['REDIS_URL']"
        )
    if others := facts.of_other_versions:
        yield Finding(
            "warning",
            f"{counted(others, 'process', 'processes')} reporting in the format of another version of Poolhouse "
            "(warning at 1): run one version in all processes",
        )


def _unreported_service(service: str, expected: int, silent_s: float | None) -> Finding:
    none, remedy = f"{service}: 0 of {counted(expected, 'process', 'processes')} reporting", "start the service"
    if silent_s is None:  # never started, perhaps on purpose
        return Finding(
            "warning",
            f"{none}, and none in the last 24 h (warning below {expected}): {remedy}, or correct POOLHOUSE['FLEET']",
        )
    grace_s = options().FLEET_GRACE_S
    level = "critical" if silent_s >= grace_s else "warning"
    return Finding(level, f"{none} for {duration(silent_s)} (critical at {in_s(grace_s)}): {remedy}")


def _shared_names(processes: list[ProcessReport]) -> Iterator[Finding]:
    by_name: dict[str, list[ProcessReport]] = defaultdict(list)
    for process in processes:
        by_name[process.name].append(process)
    for name, ones in by_name.items():
        # The report of a killed process may still be there when its successor, with the same pid, has started.
        started_at = max(one.started_at for one in ones)
        alive = sum(one.reported_at > started_at for one in ones)
        if alive > 1:
            yield Finding(
                "warning",
                f"{alive} processes have the name {name} (warning at 2), so the holders of their connections cannot be "
                "distinguished: set a host name of its own for each container",
            )


# The pools.


def _leak_suspects(process: ProcessReport) -> Iterator[Finding]:
    threshold_s = options().LEAK_THRESHOLD_S
    threshold = f"warning at {in_s(threshold_s)}" if threshold_s else "over LEAK_THRESHOLD_S of that process"
    for pool in process.pools:
        if pool.suspects:
            longest = pool.suspects[0]
            yield Finding(
                "warning",
                f"{process.name}: {counted(len(pool.suspects), 'leak suspect')}, the longest held for "
                f"{duration(longest.held_s)} by {longest.holder} ({threshold}): db_pool_status --detailed shows the "
                "code that checked it out",
            )


def _checkouts(service: Group) -> Iterator[Finding]:
    if service.waiting:
        they = counted(service.waiting, "caller")
        yield Finding(
            "warning",
            f"{service.name}: {they} waiting for a connection (warning at 1): if it lasts, raise POOL_SIZE or "
            "shorten hold times; db_pool_advise computes the sizes",
        )
    for alias in sorted({pool.alias for pool in service.pools}):
        recent, who = service.recent(alias), f"{service.name}{service.alias_note(alias)}"
        if recent.timeouts:
            yield _timeouts(recent, who)
        if recent.connect_errors:
            is_without = not any(pool.open for pool in service.pools if pool.alias == alias)
            yield _connect_errors(recent, who, is_without=is_without)
        if (wait := recent.wait) and wait.count >= options().SAMPLE_MIN and (p95_s := wait.quantile_s(0.95)):
            yield graded(
                f"{who}: p95 wait for a connection is {duration(p95_s)} {PERIOD}",
                p95_s * 1000,
                options().WAIT_WARNING_MS,
                options().WAIT_CRITICAL_MS,
                unit=in_ms,
                remedy="raise POOL_SIZE or shorten hold times; db_pool_advise computes the sizes",
            )


def _timeouts(recent: Activity, who: str) -> Finding:
    """Return the finding on callers that got an error instead of a connection, critical while it goes on."""
    they = f"{who}: {counted(recent.timeouts, 'pool timeout')} {PERIOD}"
    remedy = "raise POOL_SIZE or shorten hold times; db_pool_advise computes the sizes"
    if not recent.timeouts_now:
        return Finding("warning", f"{they} (warning at 1): {remedy}")
    return Finding("critical", f"{they}, {recent.timeouts_now:,} in the last {NOW_S} s (critical at 1): {remedy}")


def _connect_errors(recent: Activity, who: str, *, is_without: bool) -> Finding:
    failed = f"{who}: {counted(recent.connect_errors, 'connection')} could not be opened {PERIOD}"
    remedy = "the log of the service has the error"
    if is_without:
        return Finding("critical", f"{failed}, and 0 are open (critical at 0 open): {remedy}")
    return Finding("warning", f"{failed} (warning at 1): {remedy}")


# The servers.


def _server(server: ServerAnswers, *, of_several: bool) -> Iterator[Finding]:
    facts, where = server.facts, f" on {server.name}" if of_several else ""
    used, usable = facts.used, facts.capacity.usable
    if facts.capacity.through_pooler:
        remedy = direct_remedy(server.name) or "set POOLHOUSE['DIRECT'] to the address of the server itself"
        yield Finding("warning", f"the monitor reaches database server ({server.name}) through PgBouncer; {remedy}")
    yield _utilisation(
        f"{used} of the {usable} usable server connections{where} are open",
        used / max(1, usable),
        "lower POOL_SIZE, run fewer processes, raise max_connections, or use PgBouncer",
    )
    for limit in facts.limits:
        used = facts.used_of(limit)
        yield _utilisation(
            f"{used} of the {limit.connections} connections of {limit.kind} {limit.name}{where} are open",
            used / max(1, limit.connections),
            f"raise its CONNECTION LIMIT, or open fewer connections to this {limit.kind}",
        )
    if hidden := sum(connection.state == HIDDEN for connection in facts.connections):
        are_hidden = f"{counted(hidden, 'server connection')}{where} hidden from the monitor"
        yield Finding("warning", f"{are_hidden} (warning at 1): grant pg_monitor to its role")
    yield from _locks(facts, where)


def _utilisation(text: str, share: float, remedy: str) -> Finding:
    warning, critical = options().UTILISATION_WARNING_PERCENT, options().UTILISATION_CRITICAL_PERCENT
    return graded(f"{text}, {percent(share)}", 100 * share, warning, critical, unit=in_percent, remedy=remedy)


def _locks(facts: ServerFacts, where: str) -> Iterator[Finding]:
    if facts.blocks:
        longest = facts.blocks[0]
        they = counted(len({block.pid for block in facts.blocks}), "session")
        yield graded(
            f"{they}{where} blocked, the longest for {duration(longest.wait_s)} by {longest.blocker or NO_NAME}, "
            f"pid {longest.blocker_pid}",
            longest.wait_s,
            options().BLOCKED_WARNING_S,
            unit=in_s,
            remedy="end the transaction that blocks it, or set lock_timeout",
        )
    if facts.idle_in_transaction:
        longest_idle = facts.idle_in_transaction[0]
        yield graded(
            f"{longest_idle.application or NO_NAME}, pid {longest_idle.pid},{where} has been idle in a transaction "
            f"for {duration(longest_idle.state_age_s)}",
            longest_idle.state_age_s or 0,
            options().IDLE_IN_TRANSACTION_WARNING_S,
            unit=in_s,
            remedy="commit or roll back sooner, or set idle_in_transaction_session_timeout",
        )


def _pgbouncer(pooler: PgBouncer) -> Iterator[Finding]:
    for pool in pooler.pools:
        if pool.clients_waiting:
            yield graded(
                f"PgBouncer: {counted(pool.clients_waiting, 'client')} waiting for a connection to {pool.database}, "
                f"the longest for {duration(pool.longest_wait_s)}",
                pool.longest_wait_s,
                options().PGBOUNCER_WAIT_WARNING_S,
                options().PGBOUNCER_WAIT_CRITICAL_S,
                unit=in_s,
                remedy="raise default_pool_size, or shorten transactions",
            )
