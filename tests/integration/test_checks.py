"""`check --database` on real servers, and the messages of processes that fork."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core import checks
from django.core.management import call_command
from django.db import connection, connections
from pytest_django import Settings

from config.database import get_fleet
from config.env import CHECKOUT, Database, Monitor, read
from poolhouse.checks import check_servers
from poolhouse.overview.status import take_status
from poolhouse.servers.refusals import FULL, POOLER_FULL
from sandbox.servers import Place, Server, pgbouncer
from tests.conftest import DEADLINE_S
from tests.integration.test_engine import OURS, PLAIN, MakePool, _database, pool_of
from tests.plugin import superuser_sql

__all__ = ["_database", "pool_of"]

Configure = Callable[..., None]
STANDARD = "django.db.backends.postgresql"


def said(alias: str = "default") -> dict[str | None, checks.CheckMessage]:
    return {message.id: message for message in check_servers(None, databases=[alias])}


# The fleet, against 40 connections less 3 less 2.


@pytest.mark.parametrize("each_web", [16, 17])
def test_a_fleet_that_exceeds_the_usable_connections_is_a_warning(configure: Configure, each_web: int) -> None:
    configure(FLEET={"web": (2, each_web), "beat": (1, 2)})
    if each_web == 16:  # 32 + 2 + 1 for the monitor
        assert said() == {}
        return
    message = said()["poolhouse.W004"]
    assert message.level == checks.WARNING
    assert "can open 37 connections to 'default' (web 2 × 17, beat 1 × 2, monitor 1)" in message.msg
    assert "the 35 that are usable (max_connections 40, reserved 3 + 2)" in message.msg


def test_pgbouncer_s_connections_are_added_to_the_fleet_s(configure: Configure) -> None:
    configure(FLEET={"web": (2, 0), "worker": (3, 1)}, PGBOUNCER_CONNECTIONS=31)
    assert said() == {}
    configure(FLEET={"web": (2, 0), "worker": (3, 1)}, PGBOUNCER_CONNECTIONS=32)
    message = said()["poolhouse.W004"].msg
    assert "can open 36 connections to 'default' (web 2 × 0, worker 3 × 1, PgBouncer 32, monitor 1)" in message


def test_servers_are_not_queried_without_check_database(configure: Configure) -> None:
    configure(FLEET={"web": (2, 1000)})
    assert check_servers(None, databases=None) == []
    configure(FLEET={})
    assert said() == {}


def test_an_unreachable_server_is_a_warning(configure: Configure, pool_of: MakePool) -> None:
    alias = pool_of(OURS)
    connections.settings[alias]["PORT"] = 1
    configure(FLEET={"web": (2, 16)})
    message = said(alias)["poolhouse.W005"]
    assert message.msg.startswith(f"Cannot read the connection limit from the server of '{alias}': ")
    assert "refused" in message.msg
    assert "\n" not in message.msg


def test_a_full_server_is_queried_as_the_monitor(configure: Configure) -> None:
    connection.ensure_connection()
    configure(FLEET={"web": (2, 16)})
    superuser_sql("ALTER ROLE poolhouse CONNECTION LIMIT 0")
    try:
        assert said() == {}
        configure(MONITOR_USER="nobody")
        assert set(said()) == {"poolhouse.W005"}
    finally:
        superuser_sql("ALTER ROLE poolhouse CONNECTION LIMIT -1")
    assert said() == {}, "the application asks where the monitor is refused"


def test_the_sandbox_passes_as_it_starts(configure: Configure, settings: Settings) -> None:
    fleet = get_fleet()
    assert fleet == {"web": (2, 10), "worker": (3, 1), "beat": (1, 1)}
    configure(FLEET=fleet)
    call_command("check", databases=["default"], fail_level="WARNING")


# PgBouncer.


@pytest.fixture(scope="module")
def pooler(servers: Place) -> Iterator[Server]:
    """Start a PgBouncer in front of the tests' server."""
    server = pgbouncer(servers, read(Database), read(Monitor), admin=read(Database).db_user)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def through(pooler: Server, pool_of: MakePool, configure: Configure) -> Callable[..., str]:
    """Make an alias that goes through PgBouncer."""

    def make(**database: Any) -> str:
        url = read(Monitor).model_copy(update={"pgbouncer_host": "127.0.0.1"}).pgbouncer_url
        alias = pool_of(STANDARD)
        direct = {name: connections.settings[alias][name] for name in ("HOST", "PORT", "NAME")}
        configure(PGBOUNCER_URL=url, DIRECT={alias: direct})
        server = {"HOST": "localhost", "PORT": pooler.port, "NAME": "poolhouse_transaction", "POOL_OPTIONS": {}}
        connections.settings[alias] |= server | database
        return alias

    return make


@pytest.fixture
def administer(pooler: Server) -> Callable[[str], None]:
    """Run a command of PgBouncer's administrator."""
    import psycopg2

    def run(command: str) -> None:
        database = read(Database)
        console = psycopg2.connect(
            host="127.0.0.1",
            port=pooler.port,
            user=database.db_user,
            password=database.db_pass.get_secret_value(),
            dbname="pgbouncer",
        )
        try:
            console.autocommit = True
            with console.cursor() as cursor:
                cursor.execute(command)
        finally:
            console.close()

    return run


def test_server_side_cursors_are_checked_against_pgbouncer_s_pool_mode(through: Callable[..., str]) -> None:
    message = said(through())["poolhouse.W003"]
    assert message.level == checks.WARNING
    assert "pool_mode transaction" in message.msg
    assert said(through(DISABLE_SERVER_SIDE_CURSORS=True)) == {}
    assert said(through(NAME="poolhouse_session")) == {}


def test_a_database_under_pgbouncer_s_wildcard_is_connected_to_first(
    through: Callable[..., str], administer: Callable[[str], None], servers: Place
) -> None:
    path = servers.data / "pgbouncer/pgbouncer.ini"
    before = path.read_text()
    any_name = f"[databases]\n* = host=127.0.0.1 port={read(Database).db_port} pool_mode=transaction"
    path.write_text(before.replace("[databases]", any_name))
    administer("RELOAD")
    administer("SET pool_mode = 'session'")
    try:
        assert set(said(through(NAME=connection.settings_dict["NAME"]))) == {"poolhouse.W003"}
    finally:
        path.write_text(before)
        administer("RELOAD")


@pytest.mark.parametrize(("size", "is_told"), [(29, False), (30, True), (300, True)])
def test_a_pgbouncer_pool_above_the_server_s_limit_is_a_warning(
    through: Callable[..., str], administer: Callable[[str], None], servers: Place, size: int, is_told: bool
) -> None:
    alias = through(DISABLE_SERVER_SIDE_CURSORS=True)
    path = servers.data / "pgbouncer/pgbouncer.ini"
    before = path.read_text()
    sizes = re.sub(r"(max_user_connections|default_pool_size) = \d+", r"\1 = 0", before)
    path.write_text(sizes.replace("default_pool_size = 0", f"default_pool_size = {size}"))
    administer("RELOAD")
    try:
        found = said(alias)
    finally:
        path.write_text(before)
        administer("RELOAD")
    assert set(found) == ({"poolhouse.W004"} if is_told else set())
    if is_told:
        assert f"can open {size + 5} connections for each role of '{alias}' (pool_size {size}, reserve 5)" in (
            found["poolhouse.W004"].msg
        )
        assert "the 35 that are usable (max_connections 40, reserved 3 + 2)" in found["poolhouse.W004"].msg


@pytest.mark.parametrize("of_user", ["", "statement"])
def test_the_pool_mode_of_a_user_comes_before_the_database_s(
    through: Callable[..., str], administer: Callable[[str], None], servers: Place, of_user: str
) -> None:
    alias = through()
    path = servers.data / "pgbouncer/pgbouncer.ini"
    before = path.read_text()
    connections.settings[alias]["NAME"] = "poolhouse_session"  # as PgBouncer calls it
    users = f"[users]\n{connections.settings[alias]['USER']} = pool_mode={of_user}\n[pgbouncer]"
    path.write_text(before.replace("[pgbouncer]", users) if of_user else before)
    administer("RELOAD")
    try:
        assert [message.msg.partition("pool_mode ")[2].split()[0] for message in said(alias).values()] == (
            [of_user] if of_user else []
        )
    finally:
        path.write_text(before)
        administer("RELOAD")


def test_behind_pgbouncer_the_limit_is_max_client_conn(through: Callable[..., str], configure: Configure) -> None:
    alias = through(DISABLE_SERVER_SIDE_CURSORS=True)
    configure(FLEET={"web": (2, 499)})
    assert said(alias) == {}
    configure(FLEET={"web": (2, 500)})
    assert "the 1000 that are usable (PgBouncer's max_client_conn 1000)" in said(alias)["poolhouse.W004"].msg


def test_an_unreachable_pgbouncer_is_a_warning(configure: Configure, pool_of: MakePool) -> None:
    configure(PGBOUNCER_URL="postgresql://me@127.0.0.1:1/pgbouncer", FLEET={})
    alias = pool_of(STANDARD)
    connections.settings[alias] |= {"HOST": "127.0.0.1", "PORT": 1}
    assert said(alias)["poolhouse.W005"].msg.startswith(f"Cannot read the pool_mode from the PgBouncer of '{alias}': ")


# Forks, which no check sees, in processes of their own.


def in_a_project(program: str, **database: Any) -> str:
    """Run a program in a project with one database; return its log."""
    begin = """
import json, os, sys
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["poolhouse"], DATABASES={"default": json.loads(sys.argv[1])},
    LOGGING={"version": 1, "handlers": {"err": {"class": "logging.StreamHandler"}}, "root": {"handlers": ["err"]}},
)
"""
    own = connection.settings_dict
    server = {key: own[key] for key in ("NAME", "HOST", "PORT", "USER", "PASSWORD")}
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "backend")}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    answer = subprocess.run(
        [sys.executable, "-c", begin + program, json.dumps({**server, **database})],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stderr


FORK = """
django.setup()
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("SELECT 1")
connection.close()
for _ in range(2):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize(
    ("database", "is_told"),
    [
        ({"ENGINE": PLAIN}, True),
        ({"ENGINE": STANDARD, "OPTIONS": {"pool": {"min_size": 1}}}, True),
        ({"ENGINE": OURS}, False),
        ({"ENGINE": STANDARD}, False),
    ],
)
def test_a_fork_with_an_open_pool_is_logged_once(database: dict[str, Any], is_told: bool) -> None:
    log = in_a_project(FORK, **database)
    if not is_told:
        assert "poolhouse.W007" not in log
        return
    assert log.count("poolhouse.W007: The pool of 'default' has 1 connection open") == 1


@pytest.mark.parametrize("database", [{"ENGINE": PLAIN}, {"ENGINE": STANDARD, "OPTIONS": {"pool": True}}])
def test_a_fork_before_the_first_query_is_not_logged(database: dict[str, Any]) -> None:
    assert "poolhouse.W" not in in_a_project(
        FORK.replace('    cursor.execute("SELECT 1")', "    pass").replace(
            "with connection.cursor() as cursor:", "if True:"
        ),
        **database,
    )


WORKER = """
from celery import Celery
app = Celery("shop", broker="memory://")
django.setup()
app.Worker(pool={pool!r}, concurrency=1)
"""


@pytest.mark.parametrize(
    ("database", "pool", "is_told"),
    [
        ({"ENGINE": PLAIN}, "prefork", True),
        ({"ENGINE": STANDARD, "OPTIONS": {"pool": True}}, "prefork", True),
        ({"ENGINE": STANDARD, "OPTIONS": {"pool": True}}, "threads", False),
        ({"ENGINE": OURS}, "prefork", False),
        ({"ENGINE": STANDARD}, "prefork", False),
    ],
)
def test_a_prefork_worker_with_a_pool_logs_a_warning_at_its_start(
    database: dict[str, Any], pool: str, is_told: bool
) -> None:
    log = in_a_project(WORKER.format(pool=pool), **database)
    assert log.count("poolhouse.W006: DATABASES['default'] has a pool that cannot be used after a fork") == is_told


def test_a_monitor_behind_pgbouncer_is_detected_by_its_answers(
    through: Callable[..., str], configure: Configure
) -> None:
    alias = through(DISABLE_SERVER_SIDE_CURSORS=True)
    assert "poolhouse.W008" not in said(alias)
    configure(PGBOUNCER_URL="", DIRECT={})
    message = said(alias)["poolhouse.W008"]
    assert f"POOLHOUSE['DIRECT'] = {{'{alias}': " in str(message.hint)
    (reason,) = [one for one in take_status(alias).verdict[1] if "through PgBouncer" in one]
    assert reason.startswith(
        f"the monitor reaches database server ({alias}) through PgBouncer; set POOLHOUSE['DIRECT']"
    )


@pytest.mark.parametrize(("limit", "state"), [("max_client_conn", POOLER_FULL), ("role", FULL)])
def test_a_full_server_is_not_called_unreachable(
    through: Callable[..., str],
    configure: Configure,
    administer: Callable[[str], None],
    limit: str,
    state: str,
) -> None:
    alias = through()
    configure(MONITOR_USER="")
    if limit == "role":
        superuser_sql(f"ALTER ROLE {read(Database).db_user} CONNECTION LIMIT 0")
    else:
        configure(DIRECT={})
        administer("SET max_client_conn = 0")
    try:
        (found,) = [one for one in take_status(alias).unreachable if one.source.startswith("database server")]
    finally:
        superuser_sql(f"ALTER ROLE {read(Database).db_user} CONNECTION LIMIT -1")
        administer("SET max_client_conn = 1000")
    assert (found.state, found.level) == (state, "critical"), found.reason
    assert ("POOLHOUSE['DIRECT']" in found.reason) == (state == POOLER_FULL)
