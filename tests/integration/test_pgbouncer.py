"""The status with a running PgBouncer, joined with what the server shows of it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

import psycopg2
import pytest
from django.db import connection, connections

from config.database import direct_config, pgbouncer_config
from config.env import Database, Monitor, Pooler, read
from config.strategies import STRATEGIES
from poolhouse.overview.status import PGBOUNCER, Status, take_status
from poolhouse.process.pools import pool_states
from poolhouse.reports.report import ProcessReport
from poolhouse.reports.store import store
from poolhouse.servers.pgbouncer import PgBouncer, console_cursor, setting
from poolhouse.servers.pgbouncer import servers as console_servers
from poolhouse.servers.server import monitor_cursor
from sandbox.servers import Place, Server, pgbouncer
from tests.integration.conftest import await_that, frozen

pytestmark = pytest.mark.django_db

Configure = Callable[..., None]
Connection: TypeAlias = "psycopg2.extensions.connection"
NAME = "web@box:1"
COMMANDS = ("PAUSE", "KILL poolhouse_transaction", "RELOAD", "SHUTDOWN")


@pytest.fixture(scope="module")
def pooler(servers: Place) -> Iterator[Server]:
    """Start a PgBouncer in front of the tests' server."""
    server = pgbouncer(servers, read(Database), read(Monitor))
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def configured(configure: Configure, pooler: Server) -> None:
    """Let the status query it."""
    monitor = read(Monitor).model_copy(update={"pgbouncer_host": "127.0.0.1"})
    configure(PGBOUNCER_URL=monitor.pgbouncer_url)


@pytest.fixture
def web() -> Iterator[None]:
    """Publish the report of a process with the name of the tests' connections."""
    reports = store()
    assert reports
    report = ProcessReport(NAME, "web", "box", 1, time.time(), time.time(), tuple(pool_states()))
    reports.publish(report)
    yield
    reports.withdraw(report.key)


def _named_by(port: int) -> str:
    """The name of the database in PgBouncer, or on the server."""
    name = read(Database).db_name
    return name if port == read(Database).db_port else f"{name}_transaction"


@contextmanager
def holding(port: int, *, database: str = "", name: str = NAME) -> Iterator[Connection]:
    """Hold a connection of the application's role for a block."""
    settings = read(Database)
    held = psycopg2.connect(
        host="127.0.0.1",
        port=port,
        user=settings.db_user,
        password=settings.db_pass.get_secret_value(),
        dbname=database or _named_by(port),
        application_name=name,
    )
    try:
        yield held
    finally:
        held.close()


def answered(status: Status) -> PgBouncer:
    """Return the status' PgBouncer; it and all other sources must have answered."""
    assert status.unreachable == []
    assert status.pgbouncer
    return status.pgbouncer


def backend_pid(client: Connection) -> int:
    """Begin a transaction, and return the pid of its server process."""
    with client.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        ((pid,),) = cursor.fetchall()
    return int(pid)


def test_pools_servers_and_clients_are_shown_without_the_console(pooler: Server) -> None:
    with holding(pooler.port) as busy, holding(pooler.port, name="idler"):
        pid = backend_pid(busy)
        seen = answered(take_status())
    (pool,) = seen.pools
    assert (pool.database, pool.user, pool.mode) == ("poolhouse_transaction", "poolhouse", "transaction")
    assert (pool.clients_active, pool.clients_waiting, pool.servers_active) == (2, 0, 1)
    assert pid in [server.remote_pid for server in seen.servers if server.state == "active"]
    assert sorted((client.application, client.wait_s) for client in seen.clients) == [("idler", 0.0), (NAME, 0.0)]
    (stats,) = (stats for stats in seen.stats if stats.database == "poolhouse_transaction")
    assert stats.queries > 0
    assert seen.version.startswith("1.")


@pytest.mark.usefixtures("web")
def test_a_server_connection_belongs_to_the_process_that_opened_it(pooler: Server) -> None:
    with holding(pooler.port) as through, holding(read(Database).db_port) as direct:
        pids = backend_pid(through), backend_pid(direct)
        status = take_status()
        answered(status)
        named = {one.pid for one in status.connections if one.application == NAME}
        assert named == set(pids), "the server tells them apart by nothing"
        assert pids[0] in [one.pid for one in status.owned_by(PGBOUNCER)]
        assert [one.pid for one in status.owned_by(NAME)] == [pids[1]]
        document = status.as_document()
    owners = {one["pid"]: one["owner"] for one in document["connections"]}
    assert (owners[pids[0]], owners[pids[1]]) == ("PgBouncer", NAME)
    assert document["processes"][0]["server_connections"] == [pids[1]]
    assert document["pgbouncer"]["pools"][0]["clients_active"] == 1


def test_an_idle_connection_of_pgbouncer_is_its_own(pooler: Server) -> None:
    with holding(pooler.port, name="gone") as client:
        pid = backend_pid(client)
        client.rollback()
    status = take_status()
    answered(status)
    (left,) = (one for one in status.connections if one.pid == pid)
    assert (status.owner_of(left), left.application) == (PGBOUNCER, "gone")


@contextmanager
def paused(pooler: Server) -> Iterator[None]:
    """Keep all of PgBouncer's server connections busy for a block."""
    assert pooler.pid
    os.kill(pooler.pid, signal.SIGUSR1)
    try:
        await_that(_is_paused)
        yield
    finally:
        os.kill(pooler.pid, signal.SIGUSR2)
        await_that(lambda: not _is_paused())


def _is_paused() -> bool:
    with console_cursor("default") as cursor:
        cursor.execute("SHOW STATE")
        state: dict[str, str] = dict(cursor.fetchall())
    return state["paused"] == "yes"


def test_waiting_clients_are_counted_with_their_wait_times(pooler: Server) -> None:
    with holding(pooler.port) as client, ThreadPoolExecutor(1) as threads:
        with paused(pooler):
            begun = time.monotonic()
            waiting = threads.submit(backend_pid, client)
            await_that(lambda: answered(take_status()).pools[0].clients_waiting == 1)
            # PgBouncer notes the time once in each turn of its loop.
            await_that(lambda: answered(take_status()).pools[0].longest_wait_s > 0.1)
            seen = answered(take_status())
            elapsed_s = time.monotonic() - begun
        assert waiting.result() > 0
    assert 0.1 < seen.pools[0].longest_wait_s <= elapsed_s
    (one,) = (one for one in seen.clients if one.application == NAME)
    assert one.state == "waiting"
    assert 0.1 < one.wait_s <= elapsed_s


@pytest.mark.parametrize("command", COMMANDS)
def test_the_monitor_may_read_the_console_only(command: str) -> None:
    with pytest.raises(psycopg2.Error, match="admin access needed"), console_cursor("default") as cursor:
        cursor.execute(command)


def test_the_application_s_role_may_not_open_the_console(pooler: Server) -> None:
    with pytest.raises(psycopg2.OperationalError, match="not allowed"), holding(pooler.port, database="pgbouncer"):
        pass


def test_an_unreachable_pgbouncer_is_named_and_the_rest_is_shown(configure: Configure) -> None:
    configure(PGBOUNCER_URL="postgresql://poolhouse_monitor:sesame@127.0.0.1:1/pgbouncer")
    status = take_status()
    assert (status.pgbouncer, status.server is None) == (None, False)
    (source,) = status.unreachable
    assert (source.source, source.level) == (PGBOUNCER, "warning")
    assert "refused" in source.reason
    assert "sesame" not in source.reason


def test_the_console_of_another_pooler_is_reported(configure: Configure) -> None:
    database = read(Database)
    password = database.db_pass.get_secret_value()
    configure(PGBOUNCER_URL=f"postgresql://{database.db_user}:{password}@127.0.0.1:{database.db_port}/postgres")
    (source,) = take_status().unreachable
    assert source.source == PGBOUNCER
    assert "unrecognized configuration parameter" in source.reason


def test_it_does_not_wait_for_its_clients_when_it_is_stopped(pooler: Server) -> None:
    with holding(pooler.port):
        pooler.stop()
    assert not (pooler.place.data / pooler.pid_file).exists(), "it was not killed"
    pooler.start()


def test_it_starts_beside_the_pid_file_of_one_that_was_killed(pooler: Server) -> None:
    pooler.stop()
    (pooler.place.data / pooler.pid_file).write_text("1\n")  # a process that is there
    pooler.start()
    assert pooler.pid not in (None, 1)


def test_a_frozen_pgbouncer_costs_no_more_than_the_timeout(configure: Configure, pooler: Server) -> None:
    configure(MONITOR_TIMEOUT_S=10)
    assert pooler.pid
    with frozen(pooler.pid):
        status = take_status()
    assert [source.source for source in status.unreachable] == [PGBOUNCER]
    assert status.server


def test_a_pgbouncer_that_freezes_during_a_query_costs_no_more_than_the_timeout(
    configure: Configure, pooler: Server
) -> None:
    def ask_one_that_freezes() -> None:
        assert pooler.pid
        with console_cursor("default") as cursor, frozen(pooler.pid):
            cursor.execute("SHOW POOLS")

    configure(MONITOR_TIMEOUT_S=5)
    with pytest.raises(psycopg2.OperationalError, match="no answer within 5 s"):
        ask_one_that_freezes()


def test_a_pgbouncer_that_is_not_configured_is_not_queried(configure: Configure) -> None:
    configure(PGBOUNCER_URL="")
    status = take_status()
    assert (status.pgbouncer, status.unreachable) == (None, [])
    assert status.as_document()["pgbouncer"] is None


def test_an_unreachable_server_does_not_hide_pgbouncer(monkeypatch: pytest.MonkeyPatch, pooler: Server) -> None:
    monkeypatch.setitem(connection.settings_dict, "PORT", "1")
    with holding(pooler.port):
        status = take_status()
    assert status.server is None
    assert status.pgbouncer
    assert [client.application for client in status.pgbouncer.clients] == [NAME]


# As it is configured.


def test_no_way_in_is_weaker_than_scram(pooler: Server) -> None:
    with console_cursor("default") as cursor:
        assert setting(cursor, "auth_type") == "scram-sha-256"
    with holding(read(Database).db_port) as direct, direct.cursor() as cursor:
        cursor.execute("SHOW password_encryption")
        assert cursor.fetchall() == [("scram-sha-256",)]
    rules = (pooler.place.data / "timescale/pg_hba.conf").read_text().splitlines()
    methods = {rule.split()[-1] for rule in rules if rule.split() and not rule.startswith("#")}
    assert methods == {"scram-sha-256"}, "who gets past PgBouncer is asked as well"
    assert (pooler.place.data / "pgbouncer/users.txt").stat().st_mode & 0o077 == 0


def test_the_three_pools_share_their_server_connections(pooler: Server, servers: Place) -> None:
    sizes = Pooler.model_validate(
        {"pgbouncer_pool_size": 2, "pgbouncer_reserve_pool_size": 1, "pgbouncer_query_wait_timeout_s": 1}
    )
    pooler.stop()
    small = pgbouncer(servers, read(Database), read(Monitor), sizes)
    small.start()
    try:
        with ExitStack() as held:
            for mode in ("session", "session", "transaction"):
                pid = backend_pid(held.enter_context(holding(small.port, database=f"poolhouse_{mode}")))
                assert pid > 0
            late = held.enter_context(holding(small.port, database="poolhouse_transaction"))
            with pytest.raises(psycopg2.OperationalError):
                backend_pid(late)
        assert "query_wait_timeout" in small.log.read_text(), "the socket may be gone before the client has read why"
    finally:
        small.stop()
        pooler.start()


def test_the_monitor_connects_to_the_server_itself(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, pooler: Server
) -> None:
    strategy, database, monitor = STRATEGIES["pgbouncer-transaction"], read(Database), read(Monitor)
    through = pgbouncer_config(strategy, database, read(Pooler), monitor, development=True)
    for key in ("HOST", "PORT", "NAME", "OPTIONS"):
        monkeypatch.setitem(connection.settings_dict, key, through[key])
        monkeypatch.setitem(connections.settings["default"], key, through[key])
    assert _is_pgbouncers(_monitors_pid()), "otherwise this proves nothing"
    configure(DIRECT={"default": direct_config(strategy, database, development=True)})
    assert not _is_pgbouncers(_monitors_pid())
    status = take_status()
    answered(status)
    assert status.server


def _monitors_pid() -> int:
    with monitor_cursor("default") as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        ((pid,),) = cursor.fetchall()
    return int(pid)


def _is_pgbouncers(pid: int) -> bool:
    with console_cursor("default") as cursor:
        return pid in [server.remote_pid for server in console_servers(cursor)]
