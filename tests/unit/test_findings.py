"""The findings on made-up statuses: each from its threshold on, and not before, with value, threshold and remedy."""

import re
from dataclasses import replace

import pytest

from poolhouse.measures.histogram import Histogram
from poolhouse.overview.sources import REPORTS
from poolhouse.overview.status import PGBOUNCER, Status, Unreachable
from poolhouse.process.activity import Activity
from poolhouse.reports.report import ProcessReport
from poolhouse.servers.pgbouncer import PgBouncer, PgBouncerPool
from poolhouse.servers.server import Block, Limit, ServerConnection
from tests.unit.test_status import Configure, configure, connection, report, server, text_of, with_pool

__all__ = ["configure"]


def status(*processes: ProcessReport, connections: tuple[ServerConnection, ...] = ()) -> Status:
    return Status(100.0, list(processes), [server(*connections)])


def recently(process: ProcessReport, **activity: object) -> ProcessReport:
    return replace(process, recent=(Activity("default", **activity),))  # type: ignore[arg-type]


# The processes that report.


def test_fewer_processes_than_in_fleet_are_a_warning_and_more_are_not(configure: Configure) -> None:
    configure(FLEET={"web": (2, 10)})
    assert status(report("web", 1)).verdict == (
        "warning",
        ["web: 1 of 2 processes reporting (warning below 2): start the others, or correct POOLHOUSE['FLEET']"],
    )
    assert status(*(report("web", pid) for pid in (1, 2, 3))).verdict == ("ok", [])


@pytest.mark.parametrize(
    ("silent_s", "verdict"),
    [
        (14.9, ("warning", "web: 0 of 2 processes reporting for 14.9 s (critical at 15 s): start the service")),
        (15.0, ("critical", "web: 0 of 2 processes reporting for 15.0 s (critical at 15 s): start the service")),
        (
            None,
            (
                "warning",
                "web: 0 of 2 processes reporting, and none in the last 24 h (warning below 2): start the service, "
                "or correct POOLHOUSE['FLEET']",
            ),
        ),
    ],
)
def test_a_service_without_processes_is_critical_after_the_grace_period(
    configure: Configure, silent_s: float | None, verdict: tuple[str, str]
) -> None:
    configure(FLEET={"web": (2, 10), "worker": (1, 1), "spare": (0, 1)})
    taken = replace(status(report("worker", 3)), silent_s={"web": silent_s, "spare": None})
    assert taken.verdict == (verdict[0], [verdict[1]])


def test_no_process_is_missing_while_the_reports_cannot_be_read(configure: Configure) -> None:
    configure(FLEET={"web": (2, 10)})
    taken = replace(status(), unreachable=[Unreachable(REPORTS, "Redis: refused")])
    assert taken.verdict == ("warning", ["process reports are unreachable: Redis: refused"])


def test_connections_with_a_poolhouse_name_but_no_report_are_a_warning() -> None:
    named = (
        connection("web@box:1", 1),
        connection("web@box:2", 2),
        connection("monitor@box:3", 3),
        connection("a@b", 4),
    )
    taken = status(connections=named)
    assert taken.verdict == (
        "warning",
        ["no process is reporting, but 2 server connections carry a Poolhouse name: check POOLHOUSE['REDIS_URL']"],
    )
    assert ["(unexplained)", "4"] in [line.split() for line in text_of(taken, detailed=False).splitlines()]
    assert status(report("web", 9), connections=named).verdict[0] == "ok"
    assert status(connections=named[2:]).verdict == ("ok", [])


def test_reports_of_another_version_are_a_warning() -> None:
    taken = replace(status(report("web", 1)), of_other_versions=3)
    assert taken.verdict == (
        "warning",
        [
            "3 processes reporting in the format of another version of Poolhouse (warning at 1): "
            "run one version in all processes"
        ],
    )


def test_processes_that_share_a_name_are_a_warning_and_a_successor_is_not() -> None:
    first, second = (replace(report("web", 1), run=run, reported_at=99.0) for run in "ab")
    assert status(first, second).verdict == (
        "warning",
        [
            "2 processes have the name web@box:1 (warning at 2), so the holders of their connections cannot be "
            "distinguished: set a host name of its own for each container"
        ],
    )
    successor = replace(second, started_at=99.0, reported_at=99.5)
    assert status(first, successor).verdict == ("ok", [])


# The pools.


def test_connect_errors_are_a_warning_and_critical_if_no_connection_is_open() -> None:
    some = recently(report("web", 1, in_use=0, idle=0), connect_errors=2)
    beside = recently(report("web", 2, in_use=1, idle=0), connect_errors=1)
    failed, remedy = "could not be opened over the last 5 min", "the log of the service has the error"
    assert status(some).verdict == (
        "critical",
        [f"web: 2 connections {failed}, and 0 are open (critical at 0 open): {remedy}"],
    )
    assert status(some, beside).verdict == ("warning", [f"web: 3 connections {failed} (warning at 1): {remedy}"])
    assert status(some, report("worker", 3)).verdict[0] == "critical", "another service's connections do not help"


def test_connect_errors_of_each_alias_are_judged_by_its_own_connections() -> None:
    process = recently(report("web", 1), connect_errors=2)
    other = replace(process.pools[0], alias="other", in_use=0, idle=0)
    process = replace(process, pools=(*process.pools, other))
    assert status(process).verdict == (
        "warning",
        [
            "web (default): 2 connections could not be opened over the last 5 min (warning at 1): "
            "the log of the service has the error"
        ],
    )
    process = replace(process, recent=(Activity("other", connect_errors=2),))
    assert status(process).verdict == (
        "critical",
        [
            "web (other): 2 connections could not be opened over the last 5 min, and 0 are open (critical at 0 open): "
            "the log of the service has the error"
        ],
    )


def waits(*, count: int, wait_s: float) -> Histogram:
    made = Histogram()
    for _ in range(count):
        made.record(wait_s)
    return made


@pytest.mark.parametrize(
    ("count", "wait_s", "level"), [(20, 0.2, "ok"), (20, 0.3, "warning"), (20, 1.2, "critical"), (19, 7.0, "ok")]
)
def test_only_the_waits_of_the_last_5_minutes_are_judged(count: int, wait_s: float, level: str) -> None:
    long_ago = with_pool(report("web", 1), wait=waits(count=1000, wait_s=7.0))
    taken = status(recently(long_ago, wait=waits(count=count, wait_s=wait_s)))
    assert taken.verdict[0] == level
    if level != "ok":
        (reason,) = taken.verdict[1]
        threshold = {"warning": "250 ms", "critical": "1000 ms"}[level]
        pattern = rf"web: p95 wait for a connection is \S+ m?s over the last 5 min \({level} at {threshold}\): raise .+"
        assert re.fullmatch(pattern, reason)
    lines = [line for line in text_of(taken).splitlines() if line.startswith(("web ", "web@box:1 "))]
    assert not any("7.0 s" in line for line in lines) or wait_s == 7.0, "the tables show the last 5 minutes as well"


def test_pool_timeouts_are_critical_in_the_last_minute_and_a_warning_before() -> None:
    timeouts = "web: 60 pool timeouts over the last 5 min"
    remedy = "raise POOL_SIZE or shorten hold times; db_pool_advise computes the sizes"
    over = recently(report("web", 1), timeouts=60)
    assert status(over).verdict == ("warning", [f"{timeouts} (warning at 1): {remedy}"])
    now = recently(report("web", 1), timeouts=60, timeouts_now=7)
    assert status(now, over).verdict[0] == "critical"
    assert status(now).verdict == ("critical", [f"{timeouts}, 7 in the last 60 s (critical at 1): {remedy}"])


# The servers.


@pytest.mark.parametrize(("kind", "name"), [("role", "poolhouse"), ("database", "poolhouse")])
@pytest.mark.parametrize(("used", "level"), [(7, "ok"), (8, "warning"), (10, "critical")])
def test_a_connection_limit_of_a_role_or_database_is_judged_like_the_server_s(
    kind: str, name: str, used: int, level: str
) -> None:
    elsewhere = replace(connection("psql", 99), user="postgres", database="postgres")
    look = server(*(connection("web@box:1", pid) for pid in range(used)), elsewhere, limits=[Limit(kind, name, 10)])
    taken = Status(100.0, [report("web", 1)], [look])
    threshold = {"warning": "80 %", "critical": "95 %"}.get(level, "")
    reason = (
        f"{used} of the 10 connections of {kind} {name} are open, {used * 10}.0 % ({level} at {threshold}): "
        f"raise its CONNECTION LIMIT, or open fewer connections to this {kind}"
    )
    assert taken.verdict == (level, [reason] if level != "ok" else [])
    assert f"room for {10 - used} more (max_connections 40, reserved 3 + 2, {kind} {name} 10)" in text_of(taken)


@pytest.mark.parametrize(("wait_s", "level"), [(4.9, "ok"), (5.0, "warning")])
def test_sessions_blocked_for_long_are_a_warning_that_names_the_blocker(wait_s: float, level: str) -> None:
    look = server(connection("web@box:1", 1), connection("web@box:1", 2))
    blocks = [
        Block(1, "relation", wait_s, 7, "psql"),
        Block(1, "relation", 1.0, 8, ""),
        Block(2, "tuple", 1.0, 7, "psql"),
    ]
    look = replace(look, facts=replace(look.facts, blocks=blocks))
    reason = (
        "2 sessions blocked, the longest for 5.0 s by psql, pid 7 (warning at 5 s): "
        "end the transaction that blocks it, or set lock_timeout"
    )
    assert Status(100.0, [report("web", 1)], [look]).verdict == (level, [reason] if level != "ok" else [])


@pytest.mark.parametrize(("idle_s", "level"), [(29.0, "ok"), (30.0, "warning")])
def test_a_session_idle_in_a_transaction_for_long_is_a_warning(idle_s: float, level: str) -> None:
    holder = connection("psql", 7, "idle in transaction", state_age_s=idle_s, transaction_age_s=99.0)
    reason = (
        "psql, pid 7, has been idle in a transaction for 30.0 s (warning at 30 s): "
        "commit or roll back sooner, or set idle_in_transaction_session_timeout"
    )
    taken = status(report("web", 1), connections=(holder,))
    assert taken.verdict == (level, [reason] if level != "ok" else [])


@pytest.mark.parametrize(("wait_s", "level"), [(0.9, "ok"), (1.0, "warning"), (10.0, "critical")])
def test_clients_that_wait_in_pgbouncer_are_judged_by_the_longest_wait(wait_s: float, level: str) -> None:
    pool = PgBouncerPool("shop", "app", "transaction", 4, 22, 4, 0, 0, wait_s)
    taken = replace(status(report("web", 1)), pgbouncer=PgBouncer("1.24.1", [pool], [], [], []))
    reason = (
        f"PgBouncer: 22 clients waiting for a connection to shop, the longest for {wait_s:.1f} s "
        f"({level} at {wait_s:g} s): raise default_pool_size, or shorten transactions"
    )
    assert taken.verdict == (level, [reason] if level != "ok" else [])


# Several servers.


def two_servers() -> Status:
    process = report("web", 1, in_use=1, idle=0)
    other = replace(process.pools[0], alias="other", in_use=2)
    process = replace(process, pools=(*process.pools, other))
    looks = [
        server(connection("web@box:1", 1)),
        server(*(connection("web@box:1", pid) for pid in (1, 2)), connection("psql", 3), alias="other"),
    ]
    return Status(100.0, [process], looks)


def test_each_pool_is_joined_with_the_server_of_its_own_alias() -> None:
    taken = two_servers()
    assert [len(taken.owned_by("web@box:1", alias)) for alias in ("default", "other", "nowhere")] == [1, 2, 0]
    assert len(taken.owned_by("web@box:1")) == 3
    first, second = taken.as_document()["servers"]
    assert (first["unexplained"], second["unexplained"]) == ([], [3])
    assert [one["server"] for one in taken.as_document()["connections"]] == ["default", "other", "other", "other"]
    rows = [line.split() for line in text_of(taken).splitlines() if line.startswith("web@box:1 ")]
    by_alias = {row[2]: row[-3] for row in rows if "queuepool" in row}
    assert by_alias == {"(default)": "1", "(other)": "2"}
    text = text_of(taken, detailed=False)
    assert "PostgreSQL 17.2 (default): 1 connections open" in text
    assert "PostgreSQL 17.2 (other): 3 connections open" in text


def test_each_server_is_judged_and_named() -> None:
    taken = two_servers()
    full = server(*(connection("psql", pid) for pid in range(35)), alias="other")
    taken = replace(taken, servers=[taken.servers[0], full])
    level, (reason,) = taken.verdict
    assert level == "critical"
    assert reason.startswith("35 of the 35 usable server connections on other are open, 100.0 % (critical at 95 %): ")


# PgBouncer that does not answer.


def test_without_pgbouncer_s_answer_both_possible_holders_are_named() -> None:
    taken = replace(
        status(report("web", 1), connections=(connection("web@box:1", 1), connection("psql", 2))),
        unreachable=[Unreachable(PGBOUNCER, "refused")],
    )
    assert [one["owner"] for one in taken.as_document()["connections"]] == ["web@box:1 or PgBouncer", None]
    rows = [line.split() for line in text_of(taken, detailed=False).splitlines()]
    (web,) = (row for row in rows if row[:1] == ["web"])
    assert web[7] == "1?"
    assert "web@box:1 or PgBouncer" in text_of(taken)
