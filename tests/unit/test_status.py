"""The status, built of made-up reports: holders of connections, the verdict, and the output."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from pytest_django import Settings
from rich.console import Console

from poolhouse.conf import options
from poolhouse.display.console import console_for
from poolhouse.display.monitor_command import exit_status
from poolhouse.display.render import print_status
from poolhouse.engines.leaks import Suspect
from poolhouse.formatting import duration
from poolhouse.measures.histogram import Histogram
from poolhouse.overview.sources import ServerAnswers
from poolhouse.overview.status import PGBOUNCER, Status, Unreachable
from poolhouse.process.activity import Activity
from poolhouse.process.pools import PoolState
from poolhouse.reports.report import ProcessReport
from poolhouse.servers.pgbouncer import PgBouncer, PgBouncerServer
from poolhouse.servers.server import (
    HIDDEN,
    Block,
    Capacity,
    Hypertable,
    ServerConnection,
    ServerFacts,
    TimescaleDB,
)

Configure = Callable[..., None]


@pytest.fixture(autouse=True)
def configure(settings: Settings) -> Iterator[Configure]:
    """Set keys of POOLHOUSE for one test; by default no fleet is expected."""

    def set_keys(**keys: object) -> None:
        settings.POOLHOUSE = {**settings.POOLHOUSE, **keys}
        options.cache_clear()

    set_keys(FLEET={})
    yield set_keys
    options.cache_clear()


def report(service: str, pid: int, *, in_use: int = 1, idle: int = 1) -> ProcessReport:
    pool = PoolState("default", "dj_db_conn_pool.backends.postgresql", "queuepool", 5, 10, in_use, idle, 0)
    return ProcessReport(f"{service}@box:{pid}", service, "box", pid, 0.0, 99.0, (pool,))


def connection(
    application: str, pid: int, state: str = "idle", *, state_age_s: float = 5.0, transaction_age_s: float | None = None
) -> ServerConnection:
    return ServerConnection(
        pid=pid,
        application=application,
        user="poolhouse",
        database="poolhouse",
        client="127.0.0.1",
        client_port=50_000 + pid,
        state=state,
        wait="Client: ClientRead",
        age_s=60.0,
        state_age_s=state_age_s,
        transaction_age_s=transaction_age_s,
    )


CONNECTIONS = [
    connection("web@box:1", 101, "active", transaction_age_s=2.0),
    connection("web@box:1", 102),
    connection("web@box:2", 103),
    connection("psql", 104),
]


def status(*connections: ServerConnection, unreachable: list[Unreachable] | None = None) -> Status:
    processes = [report("web", 1), report("web", 2), report("worker", 3)]
    return Status(100.0, processes, [server(*(connections or CONNECTIONS))], unreachable or [])


def server(*connections: ServerConnection, alias: str = "default", **facts: Any) -> ServerAnswers:
    return ServerAnswers((alias,), ServerFacts(Capacity("17.2", 40, 3, 2, 7.0), list(connections), [], **facts))


def text_of(taken: Status, *, detailed: bool = True) -> str:
    out = io.StringIO()
    print_status(taken, console_for(out), detailed=detailed)
    return out.getvalue()


def through_pgbouncer(*servers: tuple[int, int]) -> PgBouncer:
    """Return a PgBouncer with these connections, each a pid on the server and a port of its own."""
    held = [PgBouncerServer("poolhouse", "poolhouse", "web@box:1", "active", port, pid) for pid, port in servers]
    return PgBouncer("1.24.1", [], [], held, [])


def test_each_server_connection_has_an_owner_or_is_unexplained() -> None:
    taken = status()
    owned = [[c.pid for c in taken.owned_by(process.name)] for process in taken.processes]
    assert owned == [[101, 102], [103], []]
    assert [c.pid for c in taken.owned_by(None)] == [104]


def test_pgbouncer_s_connections_are_its_own_despite_a_client_s_name() -> None:
    taken = replace(status(), pgbouncer=through_pgbouncer((102, 50_102), (104, 50_104)))
    assert [c.pid for c in taken.owned_by(PGBOUNCER)] == [102, 104]
    assert [c.pid for c in taken.owned_by("web@box:1")] == [101]
    assert taken.owned_by(None) == []


def test_a_pid_on_another_server_is_not_pgbouncer_s() -> None:
    taken = replace(status(), pgbouncer=through_pgbouncer((104, 40_000)))
    assert [c.pid for c in taken.owned_by(None)] == [104]


@pytest.mark.parametrize(("used", "level"), [(27, "ok"), (28, "warning"), (33, "warning"), (34, "critical")])
def test_the_verdict_follows_from_the_share_of_the_35_usable_connections(used: int, level: str) -> None:
    assert status(*(connection("web@box:1", pid) for pid in range(used))).verdict[0] == level


def test_an_unreachable_source_is_a_warning_that_names_it() -> None:
    level, reasons = status(unreachable=[Unreachable("process reports", "Redis: refused")]).verdict
    assert (level, reasons) == ("warning", ["process reports are unreachable: Redis: refused"])


def test_without_the_reports_processes_and_holders_are_unknown() -> None:
    away = replace(status(unreachable=[Unreachable("process reports", "Redis: refused")]), processes=[])
    document = away.as_document()
    assert (document["fleet"], document["servers"][0]["unexplained"]) == (None, None)
    text = text_of(away)
    assert "The reports of the processes cannot be read" in text
    assert "unexplained" not in text


def test_connections_hidden_from_the_monitor_are_counted_and_a_warning() -> None:
    hidden = replace(connection("web@box:1", 105, HIDDEN), age_s=None, state_age_s=None, client="", client_port=None)
    taken = status(*CONNECTIONS, hidden)
    assert taken.server
    assert taken.server.used == 5
    assert taken.verdict == (
        "warning",
        ["1 server connection hidden from the monitor (warning at 1): grant pg_monitor to its role"],
    )
    assert "hidden" in text_of(taken)


def test_connections_are_grouped_and_transactions_found() -> None:
    facts = status(
        connection("web@box:1", 1, "idle in transaction", state_age_s=4, transaction_age_s=9),
        connection("web@box:1", 2, "idle in transaction (aborted)", state_age_s=8, transaction_age_s=8),
        connection("web@box:1", 3),
        connection("web@box:1", 4),
    ).server
    assert facts
    assert [(group.state, count) for group, count in sorted(facts.groups.items())] == [
        ("idle", 2),
        ("idle in transaction", 1),
        ("idle in transaction (aborted)", 1),
    ]
    assert [one.pid for one in facts.idle_in_transaction] == [2, 1]
    assert facts.longest_transaction
    assert facts.longest_transaction.pid == 1


def test_the_document_is_json_and_carries_its_schema() -> None:
    document = json.loads(json.dumps(status().as_document()))
    assert document["schema"] == 3
    (server,) = document["servers"]
    figures = {
        "server": "default",
        "aliases": ["default"],
        "version": "17.2",
        "max_connections": 40,
        "superuser_reserved": 3,
        "reserved": 2,
        "started_at": 7.0,
        "usable": 35,
        "used": 4,
        "room_left": 31,
        "limits": [],
    }
    assert {name: server[name] for name in figures} == figures
    assert document["processes"][0]["server_connections"] == [101, 102]
    assert [one["owner"] for one in document["connections"]] == ["web@box:1", "web@box:1", "web@box:2", None]
    assert server["connection_groups"][0] == {
        "application": "psql",
        "user": "poolhouse",
        "client": "127.0.0.1",
        "state": "idle",
        "connections": 1,
    }
    assert (server["unexplained"], server["longest_transaction"]) == ([104], 101)
    assert (document["pgbouncer"], server["timescaledb"]) == (None, None)


def test_the_document_has_the_same_keys_without_the_server() -> None:
    away = Status(100.0, [], [])
    assert away.as_document().keys() == status().as_document().keys()
    assert json.loads(json.dumps(away.as_document()))["servers"] == []


@pytest.mark.parametrize("detailed", [False, True])
def test_without_a_terminal_lines_are_not_wrapped_or_coloured(detailed: bool) -> None:
    text = text_of(status(), detailed=detailed)
    assert "…" not in text
    assert "\x1b" not in text
    assert "room for 31 more (max_connections 40, reserved 3 + 2)" in text


def test_in_detail_a_narrow_terminal_still_shows_every_process_whole() -> None:
    out = io.StringIO()
    print_status(status(), Console(file=out, width=80), detailed=True)
    for name in ("web@box:1", "web@box:2", "worker@box:3", "psql"):
        assert name in out.getvalue()


def test_in_detail_a_blocked_session_is_shown_with_its_blocker_and_both_owners() -> None:
    taken = status(
        connection("web@box:1", 1, "active"),
        connection("psql", 2, "idle in transaction", state_age_s=60.0, transaction_age_s=61.0),
    )
    assert taken.server
    blocks = [Block(1, "relation", 12.3, 2, "psql"), Block(1, "relation", 12.3, 77, "autovacuum worker")]
    (look,) = taken.servers
    taken = replace(taken, servers=[replace(look, facts=replace(look.facts, blocks=blocks))])
    blocked, idle, longest = (
        lines.split("\n")[2:]
        for lines in text_of(taken).split("\n\n")
        if lines.startswith(("Blocked", "Idle in transaction", "Longest transaction"))
    )
    assert " ".join(blocked[0].split()) == "1 web@box:1 relation 12.3 s 2 unexplained psql idle in transaction"
    assert " ".join(blocked[1].split()) == "1 web@box:1 relation 12.3 s 77 autovacuum worker ?"
    assert idle[0].split()[:2] == longest[0].split()[:2] == ["2", "unexplained"]
    assert "Blocked" not in text_of(taken, detailed=False)


def test_a_session_idle_in_transaction_for_a_moment_is_not_listed() -> None:
    taken = status(connection("web@box:1", 1, "idle in transaction", state_age_s=2.9, transaction_age_s=2.9))
    assert "Idle in transaction" not in text_of(taken)


def test_in_detail_hypertables_are_shown_with_the_edition() -> None:
    extension = TimescaleDB("2.19.3", "apache", [Hypertable("public.reading", 1234, 3 * 2**20)])
    text = text_of(replace(status(), servers=[replace(server(), timescaledb=extension)]))
    assert "TimescaleDB 2.19.3, apache edition" in text
    assert text.splitlines()[-1].split() == ["public.reading", "1,234", "3.0", "MiB"]


def test_an_unreachable_server_is_not_shown_as_empty() -> None:
    taken = Status(100.0, [report("web", 1)], [], [Unreachable("database server (default)", "refused")])
    text = text_of(taken)
    assert "database server (default) is unreachable: refused" in text
    assert "by application and state" not in text


def histogram(*durations_s: float) -> Histogram:
    made = Histogram()
    for duration_s in durations_s:
        made.record(duration_s)
    return made


def with_pool(process: ProcessReport, **changes: object) -> ProcessReport:
    return replace(process, pools=(replace(process.pools[0], **changes),))  # type: ignore[arg-type]


def test_percentiles_of_a_service_are_those_of_its_merged_durations() -> None:
    quick = with_pool(report("web", 1), wait=histogram(*[0.001] * 98), counts={"lent": 98})
    slow = with_pool(report("web", 2), wait=histogram(1.0, 1.0), counts={"lent": 2})
    quick, slow = (replace(one, recent=(Activity("default", wait=one.pools[0].wait),)) for one in (quick, slow))
    taken = replace(status(), processes=[quick, slow, report("worker", 3)])
    web, worker = taken.as_document()["services"]
    fleet = taken.as_document()["fleet"]
    assert (web["service"], web["processes"], web["counts"]) == ("web", 2, {"lent": 100})
    assert web["wait"]["count"] == 100
    assert web["wait"]["p50_s"] == web["wait"]["p95_s"] == pytest.approx(0.001, rel=0.1), "not the mean of 1 ms and 1 s"
    assert web["wait"]["p99_s"] == pytest.approx(1.0, rel=0.1)
    assert (worker["wait"], fleet["wait"], fleet["max"]) == (None, web["wait"], 30)
    rows = [line.split() for line in text_of(taken).splitlines()]
    assert ["web", "100", "939", "µs", "939", "µs", "962", "ms", "–", "–", "–"] in rows


def test_leak_suspects_are_a_warning_and_shown_in_detail() -> None:
    suspect = Suspect("request GET /leaks/ in thread t", 48.2, "/srv/shop/views.py:31 in leak", "SELECT ?")
    taken = replace(status(), processes=[with_pool(report("web", 1), suspects=(suspect,))])
    assert taken.verdict == (
        "warning",
        [
            "web@box:1: 1 leak suspect, the longest held for 48.2 s by request GET /leaks/ in thread t "
            "(warning at 30 s): db_pool_status --detailed shows the code that checked it out"
        ],
    )
    lines = [" ".join(line.split()) for line in text_of(taken).splitlines()]
    at = lines.index("Leak suspects")
    assert lines[at + 1 : at + 5] == [
        "web@box:1, held for 48.2 s",
        "holder request GET /leaks/ in thread t",
        "checked out at /srv/shop/views.py:31 in leak",
        "last statement SELECT ?",
    ]


def test_a_percentile_among_pool_timeouts_is_shown_as_a_minimum() -> None:
    waited = histogram(*[0.001] * 94, *[0.5] * 6)
    served, refused = (
        replace(report(service, 1), recent=(Activity("default", wait=waited, timeouts=timeouts),))
        for service, timeouts in (("quick", 0), ("refused", 6))
    )
    text = text_of(replace(status(), processes=[served, refused]))
    rows = {line.split()[0]: line for line in text.splitlines() if line.startswith(("quick ", "refused "))}
    p95 = duration(waited.quantile_s(0.95))
    assert p95 in rows["quick"]
    assert "≥" not in rows["quick"]
    assert f"≥ {p95}" in rows["refused"]
    assert "94" in rows["refused"].split(), "who timed out was given no connection"


def test_waiting_callers_and_recent_pool_timeouts_are_warnings_by_service() -> None:
    recent = Activity("default", timeouts=3)
    busy = replace(with_pool(report("web", 1), waiting=2), recent=(recent,))
    long_ago = replace(report("worker", 2), activity=(Activity("default", timeouts=9),))
    taken = replace(status(), processes=[busy, with_pool(report("web", 3), waiting=1), long_ago])
    assert taken.verdict == (
        "warning",
        [
            "web: 3 callers waiting for a connection (warning at 1): if it lasts, raise POOL_SIZE or shorten hold "
            "times; db_pool_advise computes the sizes",
            "web: 3 pool timeouts over the last 5 min (warning at 1): raise POOL_SIZE or shorten hold times; "
            "db_pool_advise computes the sizes",
        ],
    )


@pytest.mark.parametrize(
    ("level", "fail_on", "expected"),
    [
        ("ok", "warning", 0),
        ("warning", "warning", 1),
        ("critical", "warning", 2),
        ("ok", "critical", 0),
        ("warning", "critical", 0),
        ("critical", "critical", 2),
    ],
)
def test_the_exit_status_follows_from_the_verdict_and_fail_on(level: str, fail_on: str, expected: int) -> None:
    assert exit_status(level, fail_on) == expected


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_of_services_fits_the_terminal(width: int) -> None:
    out = io.StringIO()
    taken = replace(status(), processes=[with_pool(report("web", 1), wait=histogram(0.1)), report("worker", 2)])
    print_status(taken, Console(file=out, width=width), detailed=False)
    assert max(map(len, out.getvalue().splitlines())) <= width
    (row,) = (line.split() for line in out.getvalue().splitlines() if line.startswith("fleet"))
    assert row[:8] == ["fleet", "2", "2", "2", "0", "–", "20", "2"]


def test_unknown_keys_of_a_report_are_ignored() -> None:
    document = json.loads(report("web", 1).to_json())
    document["mood"] = document["pools"][0]["mood"] = "fine"
    assert ProcessReport.from_json(json.dumps(document)) == report("web", 1)
    del document["activity"], document["recent"]
    assert ProcessReport.from_json(json.dumps(document)) == report("web", 1), "an older process says less"


def test_a_report_survives_the_wire_and_other_versions_are_ignored() -> None:
    done = Activity("default", histogram(0.1, 2.0), 1, 4, 5, 6, histogram(7.0), None)
    one = replace(report("web", 1), activity=(done,), recent=(done,))
    assert ProcessReport.from_json(one.to_json()) == one
    older = json.loads(one.to_json())
    for name in ("connects", "connect_errors", "wait", "hold"):
        del older["recent"][0][name]
    read = ProcessReport.from_json(json.dumps(older))
    assert read
    assert read.recent == (Activity("default", histogram(0.1, 2.0), 1, 4),), "an older process says less"
    assert ProcessReport.from_json('{"version": 99, "name": "web@box:1"}') is None
