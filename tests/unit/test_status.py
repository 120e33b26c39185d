"""The merged view, on made-up reports: who owns what, and what the verdict is."""

import io
import json

import pytest
from rich.console import Console

from poolhouse.console import console_for
from poolhouse.pools import PoolState
from poolhouse.render import print_status
from poolhouse.report import ProcessReport
from poolhouse.server import Capacity, ServerConnection
from poolhouse.status import Status, Unreachable


def report(service: str, pid: int, *, in_use: int = 1, idle: int = 1) -> ProcessReport:
    pool = PoolState("default", "dj_db_conn_pool.backends.postgresql", "queuepool", 5, 10, in_use, idle, 0)
    return ProcessReport(f"{service}@box:{pid}", service, "box", pid, 0.0, 99.0, (pool,))


def connection(application: str, pid: int, state: str = "idle") -> ServerConnection:
    return ServerConnection(pid, application, "poolhouse", "poolhouse", "127.0.0.1", state, 60.0, 5.0)


def status(*, used: int = 4, unreachable: list[Unreachable] | None = None) -> Status:
    processes = [report("web", 1), report("web", 2), report("worker", 3)]
    connections = [
        connection("web@box:1", 101, "active"),
        connection("web@box:1", 102),
        connection("web@box:2", 103),
        connection("psql", 104),
    ]
    return Status(100.0, processes, Capacity("17.2", 40, 3, used), connections, unreachable or [])


def test_each_server_connection_has_an_owner_or_is_unexplained() -> None:
    taken = status()
    assert [[c.pid for c in taken.connections_of(process)] for process in taken.processes] == [[101, 102], [103], []]
    assert [c.pid for c in taken.unexplained] == [104]


@pytest.mark.parametrize(("used", "level"), [(29, "ok"), (30, "warning"), (35, "warning"), (36, "critical")])
def test_the_verdict_follows_from_the_share_of_usable_connections(used: int, level: str) -> None:
    assert status(used=used).verdict[0] == level


def test_a_source_that_is_away_is_a_warning_that_names_it() -> None:
    level, reasons = status(unreachable=[Unreachable("process reports", "Redis: refused")]).verdict
    assert (level, reasons) == ("warning", ["process reports is unreachable: Redis: refused"])


def test_the_document_is_json_and_carries_its_schema() -> None:
    document = json.loads(json.dumps(status().as_document()))
    assert document["schema"] == 1
    assert document["server"]["room_left"] == 33
    assert document["processes"][0]["server_connections"] == [101, 102]
    assert document["unexplained"] == [104]


@pytest.mark.parametrize("detailed", [False, True])
def test_without_a_terminal_lines_are_whole_and_plain(detailed: bool) -> None:
    out = io.StringIO()
    print_status(status(), console_for(out), detailed=detailed)
    assert "…" not in out.getvalue()
    assert "\x1b" not in out.getvalue()
    assert "room for 33 more" in out.getvalue()


def test_in_detail_a_narrow_terminal_still_shows_every_process_whole() -> None:
    out = io.StringIO()
    print_status(status(), Console(file=out, width=80), detailed=True)
    for name in ("web@box:1", "web@box:2", "worker@box:3", "psql"):
        assert name in out.getvalue()


def test_a_server_that_is_away_is_not_shown_as_empty() -> None:
    out = io.StringIO()
    taken = Status(100.0, [report("web", 1)], None, [], [Unreachable("database server (default)", "refused")])
    print_status(taken, console_for(out), detailed=True)
    assert "database server (default) is unreachable: refused" in out.getvalue()
    assert "Connections on the server" not in out.getvalue()


def test_a_report_survives_the_wire_and_one_of_another_version_is_left_out() -> None:
    one = report("web", 1)
    assert ProcessReport.from_json(one.to_json()) == one
    assert ProcessReport.from_json('{"version": 99, "name": "web@box:1"}') is None
