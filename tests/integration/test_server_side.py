"""The monitor on servers that are free, full, frozen or unreachable, and what they show."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeAlias

import psycopg2
import pytest
from django.db import connection, connections

from poolhouse.identity import current
from poolhouse.overview import sources
from poolhouse.overview.status import take_status
from poolhouse.process.pools import pool_states
from poolhouse.reports.report import ProcessReport
from poolhouse.reports.store import store
from poolhouse.servers.server import Limit, ask, blocks, capacity, client_connections, monitor_cursor, timescaledb
from sandbox.servers import Place
from tests.conftest import DEADLINE_S
from tests.integration.conftest import await_that, frozen
from tests.plugin import superuser_sql

pytestmark = pytest.mark.django_db

Configure = Callable[..., None]
Connection: TypeAlias = "psycopg2.extensions.connection"
OPEN_FOR_ALL = 40 - 3 - 2


def connect(name: str) -> Connection:
    """Open an ordinary connection, not Django's, in the tests' database."""
    connection.ensure_connection()
    return psycopg2.connect(**{**connection.get_connection_params(), "application_name": name})


@pytest.fixture(autouse=True)
def _without_a_fleet(configure: Configure) -> None:
    """Expect no service."""
    configure(FLEET={})


@contextmanager
def holding(name: str) -> Iterator[Connection]:
    """Hold an ordinary connection for a block."""
    held = connect(name)
    try:
        yield held
    finally:
        held.close()


@pytest.fixture
def web() -> Iterator[ProcessReport]:
    """Publish the report of a process of another machine."""
    reports = store()
    assert reports
    report = ProcessReport("web@box:1", "web", "box", 1, time.time(), time.time(), tuple(pool_states()))
    reports.publish(report)
    yield report
    reports.withdraw(report.key)


@pytest.fixture
def full() -> Iterator[list[Connection]]:
    """A server that refuses ordinary roles; all connections on it are web's except the test's own."""
    held = []
    with pytest.raises(psycopg2.OperationalError, match="remaining connection slots are reserved"):  # noqa: PT012
        while True:
            held.append(connect("web@box:1"))
    yield held
    for one in held:
        one.close()


def test_the_monitor_sees_the_limits_and_not_its_own_connection() -> None:
    connection.ensure_connection()
    with monitor_cursor("default") as cursor:
        facts = ask(cursor)
    assert (facts.capacity.max_connections, facts.capacity.superuser_reserved, facts.capacity.reserved) == (40, 3, 2)
    assert facts.room_left == OPEN_FOR_ALL - facts.used
    mine = [one for one in facts.connections if one.application.startswith("tests@")]
    assert len(mine) == 1
    assert not [one for one in facts.connections if one.application.startswith("monitor@")]


def test_connections_are_shown_with_client_wait_and_ages() -> None:
    with holding("probe") as probe, probe.cursor() as cursor:
        cursor.execute("SELECT inet_client_port(), current_user")
        ((port, user),) = cursor.fetchall()
        with monitor_cursor("default") as questions:

            def seen() -> list[tuple[object, ...]]:
                found = [one for one in client_connections(questions) if one.application == "probe"]
                return [(one.pid, one.user, one.client, one.client_port, one.state, one.wait) for one in found]

            expected = (probe.get_backend_pid(), user, "127.0.0.1", port, "idle in transaction", "Client: ClientRead")
            await_that(lambda: seen() == [expected])
            facts = ask(questions)
            (one,) = (one for one in facts.connections if one.application == "probe")
            assert one.age_s is not None
            assert one.transaction_age_s is not None
            assert one.state_age_s is not None
            assert one.age_s >= one.transaction_age_s >= one.state_age_s > 0
            assert one in facts.idle_in_transaction
            probe.rollback()
            assert "probe" not in [one.application for one in ask(questions).idle_in_transaction]


def test_the_longest_transaction_is_the_one_that_began_first() -> None:
    with holding("first") as first, holding("second") as second:
        for one in (first, second):
            one.cursor().execute("SELECT 1")
        status = take_status()
        assert status.server
        assert status.server.longest_transaction
        assert status.server.longest_transaction.application == "first"
        first.rollback()
        status = take_status()
        assert status.server
        assert status.server.longest_transaction
        assert status.server.longest_transaction.application == "second"


def test_a_blocked_session_is_shown_with_its_blocker() -> None:
    with holding("holder") as holder, holding("waiter") as waiter, ThreadPoolExecutor(1) as threads:
        holder.cursor().execute("SELECT pg_advisory_lock(7)")
        waiting = threads.submit(waiter.cursor().execute, "SELECT pg_advisory_lock(7)")
        try:
            with monitor_cursor("default") as cursor:
                await_that(lambda: len(blocks(cursor)) == 1)
                begun = time.monotonic()
                (block,) = blocks(cursor)
                assert (block.pid, block.lock) == (waiter.get_backend_pid(), "advisory")
                assert (block.blocker_pid, block.blocker) == (holder.get_backend_pid(), "holder")
                (later,) = blocks(cursor)
                assert 0 < later.wait_s - block.wait_s <= time.monotonic() - begun
        finally:
            holder.close()
            waiting.result()
        with monitor_cursor("default") as cursor:
            assert blocks(cursor) == []


def test_a_full_server_shows_every_connection_to_the_monitor(full: list[Connection], web: ProcessReport) -> None:
    status = take_status()
    assert status.unreachable == []
    assert status.server
    assert (status.server.used, status.server.room_left) == (OPEN_FOR_ALL, 0)
    assert {one.pid for one in status.owned_by(web.name)} == {one.get_backend_pid() for one in full}
    assert len(status.owned_by(web.name)) == OPEN_FOR_ALL - 1
    assert status.verdict == (
        "critical",
        [
            "35 of the 35 usable server connections are open, 100.0 % (critical at 95 %): lower POOL_SIZE, run fewer "
            "processes, raise max_connections, or use PgBouncer"
        ],
    )


@pytest.mark.usefixtures("full")
def test_without_a_monitor_role_a_full_server_is_critical_and_reports_are_shown(
    configure: Configure, web: ProcessReport
) -> None:
    configure(MONITOR_USER="")
    status = take_status()
    assert (status.server, status.processes) == (None, [web])
    level, (reason,) = status.verdict
    assert level == "critical"
    assert re.match(r"database server \(default\) is full: .*remaining connection slots are reserved", reason)


@pytest.mark.usefixtures("web")
def test_the_application_s_role_is_used_and_a_refused_monitor_role_reported(
    configure: Configure,
) -> None:
    configure(MONITOR_PASSWORD="wrong")
    status = take_status()
    assert status.server
    level, (reason,) = status.verdict
    assert level == "warning"
    assert reason.startswith("database server (default) as poolhouse_monitor is unreachable: ")
    assert 'password authentication failed for user "poolhouse_monitor"' in reason


@pytest.fixture
def blind(configure: Configure) -> Iterator[None]:
    """A monitor role that may see its own connections only."""
    superuser_sql("CREATE ROLE blind LOGIN PASSWORD 'sesame'")
    configure(MONITOR_USER="blind", MONITOR_PASSWORD="sesame")
    yield
    superuser_sql("DROP ROLE blind")


def workers() -> list[str]:
    """The server's own workers, which look like clients to a role that may not see their type."""
    with monitor_cursor("default") as cursor:
        cursor.execute("SELECT application_name FROM pg_stat_activity WHERE backend_type <> 'client backend'")
        return [name for (name,) in cursor.fetchall()]


@pytest.mark.usefixtures("blind", "web")
def test_a_monitor_without_pg_monitor_counts_and_reports_hidden_connections() -> None:
    await_that(lambda: "TimescaleDB Background Worker Scheduler" in workers())
    with holding("probe") as probe:
        status = take_status()
        (one,) = (one for one in status.connections if one.application == "probe")
        assert (one.pid, one.state, one.client, one.age_s) == (probe.get_backend_pid(), "hidden", "", None)
        assert not [one for one in status.connections if one.application.startswith("TimescaleDB")]
        hidden = len(status.connections)
        reasons = [f"{hidden} server connections hidden from the monitor (warning at 1): grant pg_monitor to its role"]
        assert status.verdict == ("warning", reasons)


def test_a_server_that_never_answers_costs_no_more_than_the_timeout(
    servers: Place, configure: Configure, web: ProcessReport
) -> None:
    connection.ensure_connection()
    configure(MONITOR_TIMEOUT_S=10)
    postmaster = int((servers.data / "timescale/postmaster.pid").read_text().split()[0])
    with frozen(postmaster):
        status = take_status()
    assert (status.server, status.processes) == (None, [web])
    (source,) = status.unreachable
    assert (source.source, source.level) == ("database server (default)", "critical")
    assert "timeout expired" in source.reason


def test_sources_that_hang_are_queried_at_the_same_time(
    servers: Place, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def noting(ask: Callable[..., object]) -> Callable[..., object]:
        def asked(*arguments: object, **options: object) -> object:
            steps.append("asked")
            answer = ask(*arguments, **options)
            steps.append("given up")
            return answer

        return asked

    for name in ("_read_reports", "_query_server"):
        monkeypatch.setattr(sources, name, noting(getattr(sources, name)))
    connection.ensure_connection()
    configure(MONITOR_TIMEOUT_S=2)
    store.cache_clear()  # with the shorter time
    pids = [
        int((servers.data / name).read_text().split()[0]) for name in ("timescale/postmaster.pid", "redis/redis.pid")
    ]
    try:
        with frozen(pids[0]), frozen(pids[1]):
            status = take_status()
    finally:
        store.cache_clear()
    assert steps == ["asked", "asked", "given up", "given up"]
    assert [source.source for source in status.unreachable] == ["process reports", "database server (default)"]


def test_a_status_leaves_no_connection_open() -> None:
    for _ in range(5):
        take_status()
    with holding("probe") as probe, probe.cursor() as cursor:

        def monitors() -> int:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'monitor@%'")
            ((count,),) = cursor.fetchall()
            probe.rollback()  # a transaction sees what its first look saw
            return int(count)

        await_that(lambda: monitors() == 0)


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize(("kind", "name", "room"), [("ROLE", "user", 0), ("DATABASE", "dbname", 1)])
def test_a_limit_of_role_or_database_bounds_the_usable_connections(kind: str, name: str, room: int) -> None:
    connection.ensure_connection()
    whose = connection.get_connection_params()[name]
    with holding("probe"):
        used = len([one for one in take_status().connections if whose in (one.user, one.database)])
        superuser_sql(f"ALTER {kind} {whose} CONNECTION LIMIT {used + room}")  # the monitor is let in
        try:
            status = take_status()
        finally:
            superuser_sql(f"ALTER {kind} {whose} CONNECTION LIMIT -1")
    assert status.server
    assert status.server.room_left == room
    limit = Limit(kind.lower(), whose, used + room)
    assert (status.server.limits, status.server.used_of(limit)) == ([limit], used)
    assert (status.verdict[0] == "critical") == (room == 0)
    assert take_status().verdict == ("ok", [])


@pytest.mark.usefixtures("web")
def test_the_verdict_names_the_blocker(configure: Configure) -> None:
    configure(BLOCKED_WARNING_S=0.1, IDLE_IN_TRANSACTION_WARNING_S=0.1)
    with holding("holder") as holder, holding("waiter") as waiter, ThreadPoolExecutor(1) as threads:
        holder.cursor().execute("SELECT pg_advisory_lock(8)")
        waiting = threads.submit(waiter.cursor().execute, "SELECT pg_advisory_lock(8)")
        try:
            await_that(lambda: len(take_status().verdict[1]) == 2)
            level, (blocked, idle) = take_status().verdict
        finally:
            holder.close()
            waiting.result()
    assert level == "warning"
    assert re.match(r"1 session blocked, the longest for \S+ m?s by holder, pid \d+ \(warning at ", blocked)
    assert re.match(r"holder, pid \d+, has been idle in a transaction for ", idle)


@pytest.mark.usefixtures("full")
def test_if_both_roles_are_refused_both_reasons_are_reported(configure: Configure) -> None:
    configure(MONITOR_PASSWORD="wrong")
    (source,) = take_status().unreachable
    assert "remaining connection slots are reserved" in source.reason
    assert "as poolhouse_monitor: " in source.reason
    assert 'password authentication failed for user "poolhouse_monitor"' in source.reason


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Add the settings of a second alias."""
    own = connections.settings["default"]
    made = {**own, "OPTIONS": dict(own["OPTIONS"])}
    monkeypatch.setitem(connections.settings, "other", made)
    return made


def test_two_addresses_of_one_server_are_one_server(other: dict[str, object]) -> None:
    other["HOST"] = "localhost"
    with holding("probe"):
        status = take_status()
    (server,) = status.servers
    assert server.aliases == ("default", "other")
    assert [one.application for one in status.connections].count("probe") == 1


@pytest.mark.usefixtures("web")
def test_each_server_is_queried_and_an_unreachable_one_is_named(other: dict[str, object]) -> None:
    other["PORT"] = 1
    status = take_status()
    assert [server.aliases for server in status.servers] == [("default",)]
    assert [source.source for source in status.unreachable] == ["database server (other)"]
    assert status.verdict[0] == "critical"
    assert take_status("default").verdict == ("ok", [])
    assert take_status("other").servers == []


def test_unusable_settings_are_reported_like_an_unreachable_server(other: dict[str, object]) -> None:
    other |= {"NAME": "", "PORT": 2, "OPTIONS": {}}
    (source,) = take_status().unreachable
    assert source.source == "database server (other)"
    assert "settings.DATABASES is improperly configured" in source.reason


def test_the_report_of_the_querying_process_is_shown_too(web: ProcessReport) -> None:
    reports = store()
    assert reports
    mine = replace(web, name=current().name, pid=current().pid, run="mine")
    reports.publish(mine)
    try:
        assert mine in take_status().processes
    finally:
        reports.withdraw(mine.key)


def test_with_one_alias_the_others_are_not_judged(web: ProcessReport) -> None:
    reports = store()
    assert reports
    waiting = replace(web, pools=(replace(web.pools[0], alias="other", waiting=3),), name="web@box:2", pid=2)
    reports.publish(waiting)
    try:
        assert take_status().verdict[1] == [
            "web: 3 callers waiting for a connection (warning at 1): if it lasts, raise POOL_SIZE or shorten hold "
            "times; db_pool_advise computes the sizes"
        ]
        assert take_status("default").verdict == ("ok", [])
    finally:
        reports.withdraw(waiting.key)


def test_reports_of_another_version_are_counted_and_silence_is_measured(
    configure: Configure, web: ProcessReport
) -> None:
    configure(FLEET={"web": (1, 1), "gone": (2, 1), "never": (1, 1)})
    reports = store()
    assert reports
    gone = replace(web, service="gone", name="gone@box:7", pid=7)
    reports.publish(gone, {"default:count:lent": 1})
    reports.withdraw(gone.key)
    status = take_status()
    assert set(status.silent_s) == {"gone", "never"}
    assert status.silent_s["never"] is None
    assert status.silent_s["gone"] is not None
    assert 0 <= status.silent_s["gone"] < DEADLINE_S
    assert status.verdict[0] == "warning", "it may be starting anew"
    configure(FLEET={"gone": (2, 1)}, FLEET_GRACE_S=0.0)
    assert take_status().verdict[0] == "critical"


def test_a_server_that_freezes_during_a_query_costs_no_more_than_the_timeout(configure: Configure) -> None:
    def ask_one_that_freezes() -> None:
        with monitor_cursor("default") as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            ((pid,),) = cursor.fetchall()
            with frozen(pid):
                capacity(cursor)

    configure(MONITOR_TIMEOUT_S=5)
    with pytest.raises(psycopg2.OperationalError, match="no answer within 5 s"):
        ask_one_that_freezes()


def test_the_server_cancels_slow_queries_of_the_monitor(configure: Configure) -> None:
    configure(MONITOR_TIMEOUT_S=10)
    with monitor_cursor("default") as cursor:
        cursor.execute("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
        assert cursor.fetchall() == [("10s", "500ms")]


def test_timescaledb_is_shown_with_edition_and_hypertables() -> None:
    with monitor_cursor("default") as cursor:
        extension = timescaledb(cursor)
    assert extension
    assert (extension.edition, extension.version[:2]) == ("apache", "2.")
    (table,) = (one for one in extension.hypertables if one.name == "public.reading")
    assert (table.chunk_count, table.size_bytes > 0) == (0, True)


def test_chunks_and_their_size_are_counted() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE counted (time timestamptz NOT NULL, value float8)")
        cursor.execute("SELECT create_hypertable('counted', 'time', chunk_time_interval => interval '1 day')")
        cursor.execute(
            "INSERT INTO counted "
            "SELECT '2024-01-01Z'::timestamptz + number * interval '1 day', number FROM generate_series(1, 5) AS number"
        )
        extension = timescaledb(cursor)
        assert extension
        (table,) = (one for one in extension.hypertables if one.name == "public.counted")
        cursor.execute("SELECT hypertable_size('counted')")
        assert (table.chunk_count, (table.size_bytes,)) == (5, cursor.fetchone())
        assert table.size_bytes >= 5 * 8192


def test_a_database_without_timescaledb_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "NAME", "postgres")
    status = take_status()
    assert status.server
    assert status.timescaledb is None
    assert status.unreachable == []


def test_a_locked_hypertable_only_lacks_its_size() -> None:
    with holding("locker") as locker:
        locker.cursor().execute("LOCK TABLE reading IN ACCESS EXCLUSIVE MODE")
        status = take_status()
    assert status.server
    assert status.timescaledb is None
    (source,) = status.unreachable
    assert (source.source, source.level) == ("TimescaleDB", "warning")
    assert "lock timeout" in source.reason
