"""Querying all sources at the same time, so that one that hangs delays no other."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

from django.db import connections

from poolhouse.conf import options
from poolhouse.driver import driver_errors, postgresql_aliases
from poolhouse.fork_lock import fork_lock
from poolhouse.formatting import one_line
from poolhouse.reports.report import ProcessReport
from poolhouse.reports.store import store
from poolhouse.servers import pgbouncer, server
from poolhouse.servers.bounded import Cursor
from poolhouse.servers.pgbouncer import PgBouncer, console_cursor, goes_through
from poolhouse.servers.refusals import POOLER_FULL, UNREACHABLE, direct_remedy, state_of
from poolhouse.servers.server import ServerFacts, TimescaleDB, ask_as_monitor
from poolhouse.servers.targets import Target, targets

REPORTS = "process reports"
PGBOUNCER = "PgBouncer"


@dataclass(frozen=True)
class Unreachable:
    """A source that did not answer."""

    source: str
    reason: str
    level: str = "warning"
    """the level of the finding about it"""
    state: str = UNREACHABLE
    """unreachable, full, …"""


@dataclass(frozen=True)
class Reports:
    """The reports of the processes."""

    processes: list[ProcessReport] = field(default_factory=list)
    of_other_versions: int = 0
    """processes whose reports have another version's format"""
    silent_s: dict[str, float | None] = field(default_factory=dict)
    """seconds since the last report of each service of FLEET that has no reporting process; None: over a day"""


@dataclass(frozen=True)
class ServerAnswers:
    """The answers of one database server."""

    aliases: tuple[str, ...]
    """the aliases that lead to it; the server is named after the first"""
    facts: ServerFacts
    timescaledb: TimescaleDB | None = None
    """in the first alias' database; None if it is not installed or was not queried"""

    @property
    def name(self) -> str:
        """The server's name: its first alias."""
        return self.aliases[0]


@dataclass(frozen=True)
class Answers:
    """The answers of all sources."""

    reports: Reports
    servers: list[ServerAnswers]
    pgbouncer: PgBouncer | None
    unreachable: list[Unreachable]


def query_all(alias: str | None = None, *, detailed: bool) -> Answers:
    """Query every source once, each within POOLHOUSE["MONITOR_TIMEOUT_S"]; an unreachable one raises no error.

    Args:
        alias: query only the server of this alias; None: the servers of all aliases.
        detailed: query the sizes of hypertables as well, which takes longer the more chunks there are.
    """
    servers = targets(alias)
    with fork_lock.shared(), ThreadPoolExecutor(len(servers) + 2, "poolhouse-status") as threads:
        reports = threads.submit(_read_reports)
        looks = [threads.submit(_query_server, target, detailed=detailed) for target in servers]
        pooler = threads.submit(_query_pgbouncer, alias)
    found, away = reports.result()
    seen = [look.result() for look in looks]
    console, console_away = pooler.result()
    unreachable = [*away, *(one for _, trouble in seen for one in trouble), *console_away]
    return Answers(found, _merged(look for look, _ in seen if look), console, unreachable)


def _merged(looks: Iterable[ServerAnswers]) -> list[ServerAnswers]:
    """Merge the answers of a server that has several addresses."""
    by_start: dict[float, ServerAnswers] = {}
    for look in looks:
        started_at = look.facts.capacity.started_at
        first = by_start.get(started_at)
        by_start[started_at] = _both(first, look) if first else look
    return list(by_start.values())


def _both(first: ServerAnswers, other: ServerAnswers) -> ServerAnswers:
    more = [limit for limit in other.facts.limits if limit not in first.facts.limits]
    facts = replace(first.facts, limits=[*first.facts.limits, *more])
    return replace(first, aliases=(*first.aliases, *other.aliases), facts=facts)


# Each returns its answer, and the sources that did not answer.


def _read_reports() -> tuple[Reports, list[Unreachable]]:
    try:
        reports = store()
        if reports is None:
            return Reports(), [Unreachable(REPORTS, "POOLHOUSE['REDIS_URL'] is not set: processes do not report")]
        read = reports.read_all()
        missing = set(options().FLEET) - {report.service for report in read.live}
        return Reports(read.live, read.of_other_versions, reports.silent_s(missing)), []
    except Exception as error:  # noqa: BLE001 - any error is reported, and the other sources are shown
        return Reports(), [
            Unreachable(REPORTS, f"Redis: {_reason_of(error).rstrip('.')}; check POOLHOUSE['REDIS_URL']")
        ]


def _query_server(target: Target, *, detailed: bool) -> tuple[ServerAnswers | None, list[Unreachable]]:
    source, trouble = f"database server ({target.alias})", []
    try:
        (look, extension_trouble), refusal = ask_as_monitor(target.alias, partial(_look_at, target, detailed=detailed))
    except Exception as error:  # noqa: BLE001 - any error: the server may be down, full or misspelt
        state, reason = state_of(error), _reason_of(error)
        return None, [Unreachable(source, f"{reason}; {_remedy(state, target.alias)}", "critical", state)]
    if refusal:
        reason = f"{refusal}; check POOLHOUSE['MONITOR_USER'] and MONITOR_PASSWORD"
        trouble.append(Unreachable(f"{source} as {options().MONITOR_USER}", reason))
    if extension_trouble:
        trouble.append(Unreachable("TimescaleDB", extension_trouble))
    return look, trouble


def _remedy(state: str, alias: str) -> str:
    """Return what to do about a server that refuses the monitor."""
    is_behind_pgbouncer = state == POOLER_FULL or goes_through(connections.settings[alias])
    if is_behind_pgbouncer and (remedy := direct_remedy(alias)):
        return remedy
    if state == UNREACHABLE:
        return f"check that it is running, and DATABASES[{alias!r}]"
    return "open fewer connections, or raise its limit"


def _look_at(target: Target, cursor: Cursor, *, detailed: bool) -> tuple[ServerAnswers, str]:
    """Return the answers of the server, and the reason if only the extension's are missing."""
    facts = server.ask(cursor, target.users(), target.databases())
    try:
        return ServerAnswers(target.aliases, facts, server.timescaledb(cursor) if detailed else None), ""
    except driver_errors(target.alias) as error:
        return ServerAnswers(target.aliases, facts), _reason_of(error)


def _query_pgbouncer(alias: str | None) -> tuple[PgBouncer | None, list[Unreachable]]:
    with_driver = alias or next(iter(postgresql_aliases()), None)
    if not options().PGBOUNCER_URL or with_driver is None:
        return None, []
    try:
        with console_cursor(with_driver) as cursor:
            return pgbouncer.ask(cursor), []
    except KeyError as column:
        reason = f"its console has no column {column}: expected PgBouncer 1.18 or later"
    except Exception as error:  # noqa: BLE001 - other poolers have such a console too, with answers of their own
        reason = f"{_reason_of(error)}; check PgBouncer and POOLHOUSE['PGBOUNCER_URL']"
    return None, [Unreachable(PGBOUNCER, reason)]


def _reason_of(error: Exception) -> str:
    return one_line(error) or type(error).__name__
