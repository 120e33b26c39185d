"""The PgBouncers of deploy/, run with what is deployed, as a user without a name like the one in their pods.

Only addresses and folders are the tests' own, and in Cloud Run's the TLS that the tests' server does not have.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import psycopg2
import pytest

from config.env import Database, Monitor, read
from sandbox.debian import RootFolder
from sandbox.isolation import connect
from sandbox.processes import is_listening
from sandbox.servers import HOST, Place, Server
from tests import forked
from tests.conftest import DEADLINE_S, await_that
from tests.manifests import INI_TEXTS, container_of, find, parse, pod_of
from tests.plugin import free_ports, superuser_sql

WEB = find("Deployment", "poolhouse-web")
POD_USER = str(pod_of(WEB)["securityContext"]["runAsUser"])
OFFERED = "poolhouse_transaction"
DATABASE = "deployed"
ASK = """
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("SHOW statement_timeout")
    print(*cursor.fetchone())
"""


class PodRoot(RootFolder):
    """The root folder, entered as the pods' user, which is not in its etc/passwd."""

    @cached_property
    def user_ids(self) -> tuple[str, str]:
        """The number that the manifests have."""
        return POD_USER, POD_USER


@dataclass(frozen=True)
class Deployed:
    """A running PgBouncer."""

    ini: str
    server: Server
    database: Database

    def connect(self, password: str = "", *, database: str = OFFERED) -> "psycopg2.extensions.connection":
        """Open a connection as the web does."""
        return psycopg2.connect(
            host=HOST,
            port=self.server.port,
            dbname=database,
            user=self.database.db_user,
            password=password or self.database.db_pass.get_secret_value(),
            connect_timeout=DEADLINE_S,
        )

    def size(self, name: str) -> int:
        """What the file says."""
        return int(parse(INI_TEXTS[self.ini])["pgbouncer"][name])


@pytest.fixture(scope="module")
def place(servers: Place) -> Place:
    """The tests' root folder and data, for the pods' user."""
    return replace(servers, root=PodRoot(servers.root.path, servers.root.packages, servers.root.user))


@pytest.fixture(scope="module")
def database(place: Place) -> Iterator[Database]:
    """The database of these tests, after the step that precedes its migration."""
    made = read(Database).model_copy(update={"db_name": DATABASE})
    superuser_sql(f"CREATE DATABASE {DATABASE} OWNER {made.db_user} TEMPLATE template0")
    _set_statement_timeout(place, made)
    yield made
    superuser_sql(f"DROP DATABASE {DATABASE} WITH (FORCE)")


def _set_statement_timeout(place: Place, database: Database) -> None:
    step = container_of(find("Job", "poolhouse-migrate"), "statement-timeout")
    secrets = place.data / "deploy-secrets"
    secrets.mkdir()
    (secrets / "DB_PASS").write_text(database.db_pass.get_secret_value())
    told = find("ConfigMap", "poolhouse")["data"]
    here = {"DB_HOST": HOST, "DB_PORT": str(database.db_port), "DB_NAME": database.db_name, "DB_USER": database.db_user}
    (script,) = step["args"]
    command = ["/usr/bin/env", *step["command"], script.replace("/run/secrets", "/data/deploy-secrets")]
    place.run(command, env={**told, **here})


@pytest.fixture(scope="module", params=INI_TEXTS)
def pooler(request: pytest.FixtureRequest, place: Place, database: Database) -> Iterator[Deployed]:
    """One of the deployed PgBouncers, in front of the database."""
    server = _server(request.param, place, database)
    server.start()
    yield Deployed(request.param, server, database)
    server.stop()


def _server(ini: str, place: Place, database: Database, *, folder: str = "") -> Server:
    name = folder or f"deploy-{ini}"
    (port,) = free_ports(1)
    return Server(
        name=name,
        program="pgbouncer",
        place=place,
        port=port,
        port_variable="PGBOUNCER_PORT",
        argv=["/usr/sbin/pgbouncer", f"/data/{name}/pgbouncer.ini"],
        pid_file=f"{name}/pid",
        answers=lambda: is_listening(port),
        prepare=lambda: _write(place.data / name, ini, database, port),
    )


def _write(folder: Path, ini: str, database: Database, port: int) -> None:
    """Write the deployed file with the values of this machine, in their place or at the end, where they override."""
    folder.mkdir()
    server = parse(INI_TEXTS[ini])["databases"][OFFERED]
    deployed = INI_TEXTS[ini].replace(server, f"host={HOST} port={database.db_port} dbname={database.db_name}")
    here = f"/data/{folder.name}"
    (folder / "pgbouncer.ini").write_text(
        f"{deployed}\nlisten_addr = {HOST}\nlisten_port = {port}\nserver_tls_sslmode = prefer\n"
        f"auth_file = {here}/users.txt\npidfile = {here}/pid\n"
    )
    monitor = read(Monitor)
    users = {database.db_user: database.db_pass, monitor.db_monitor_user: monitor.db_monitor_pass}
    lines = [f'"{user}" "{password.get_secret_value()}"\n' for user, password in users.items()]
    (folder / "users.txt").write_text("".join(lines))


def test_a_query_reaches_the_server(pooler: Deployed) -> None:
    with closing(pooler.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_database(), current_user, inet_server_port()")
        assert cursor.fetchone() == (DATABASE, pooler.database.db_user, pooler.database.db_port)


def test_the_statement_timeout_applies_behind_pgbouncer(pooler: Deployed) -> None:
    told_ms = int(find("ConfigMap", "poolhouse")["data"]["DB_STATEMENT_TIMEOUT"])
    with closing(pooler.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'")
        assert cursor.fetchone() == (told_ms,)


def test_a_migration_has_no_statement_timeout(database: Database) -> None:
    environment = {**os.environ, "DB_NAME": database.db_name}
    answer = forked.manage("shell", "--verbosity", "0", "--command", ASK, env=environment)
    assert answer.stdout == "0\n", answer.stderr


def test_a_wrong_password_is_refused(pooler: Deployed) -> None:
    with pytest.raises(psycopg2.OperationalError, match="SASL authentication failed"):
        pooler.connect(password="sesame")


def test_the_application_s_role_has_no_console(pooler: Deployed) -> None:
    with pytest.raises(psycopg2.Error, match="not allowed"):
        pooler.connect(database="pgbouncer")


def test_pgbouncer_has_the_numbers_of_its_configuration(pooler: Deployed) -> None:
    monitor = read(Monitor).model_copy(update={"pgbouncer_host": HOST, "pgbouncer_port": pooler.server.port})
    with closing(psycopg2.connect(monitor.pgbouncer_url)) as console:
        console.autocommit = True
        with console.cursor() as cursor:
            cursor.execute("SHOW CONFIG")
            values = {key: value for key, value, *_ in cursor.fetchall()}
    names = ("default_pool_size", "reserve_pool_size", "max_db_connections", "max_client_conn", "query_wait_timeout")
    assert {name: int(values[name]) for name in names} == {name: pooler.size(name) for name in names}
    assert values["auth_type"] == "scram-sha-256"


def test_the_server_sees_no_more_connections_than_the_pool_has(pooler: Deployed) -> None:
    """16 threads at once, as a pod of the web has them, each waiting for a lock that the test holds."""
    threads = 16
    backends: list[int] = []

    def serve() -> None:
        with closing(pooler.connect()) as connection, connection.cursor() as cursor:
            # Whoever leaves in the midst of a transaction takes the server connection along.
            connection.autocommit = True
            cursor.execute("SELECT pg_backend_pid(), pg_advisory_xact_lock_shared(16)")
            backends.append(cursor.fetchall()[0][0])

    def waiting() -> int:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 16 AND NOT granted")
        return int(cursor.fetchall()[0][0])

    with closing(connect(pooler.database)) as direct, direct.cursor() as cursor, ThreadPoolExecutor(threads) as working:
        cursor.execute("SELECT pg_advisory_lock(16)")
        serving = [working.submit(serve) for _ in range(threads)]
        try:
            await_that(lambda: waiting() == min(threads, pooler.size("default_pool_size")))
        finally:
            cursor.execute("SELECT pg_advisory_unlock(16)")
        for one in serving:
            one.result()
    assert len(backends) == threads
    assert len(set(backends)) == min(threads, pooler.size("default_pool_size"))


def test_the_probe_s_command_succeeds_only_if_pgbouncer_answers(pooler: Deployed) -> None:
    probe = container_of(WEB, "pgbouncer")["livenessProbe"]["exec"]["command"]
    (free,) = free_ports(1)

    def status(port: int) -> int:
        command = [str(port) if word == "6432" else word for word in probe]
        return subprocess.run(pooler.server.place.command(["/usr/bin/env", *command])).returncode

    no_response = 2
    assert (status(pooler.server.port), status(free)) == (0, no_response)


def test_after_sigterm_pgbouncer_serves_its_present_clients(place: Place, database: Database) -> None:
    """This lets a sidecar end after its web, and a central PgBouncer be replaced."""
    server = _server("sidecar", place, database, folder="deploy-ending")
    server.start()
    try:
        (process,) = server.children
        with closing(Deployed("sidecar", server, database).connect()) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute("SELECT 1")
            os.kill(server.pid or 0, signal.SIGTERM)
            await_that(lambda: not is_listening(server.port), "refusing new clients")
            cursor.execute("SELECT 2")
            assert cursor.fetchone() == (2,)
            assert process.poll() is None
        assert process.wait(timeout=DEADLINE_S) == 0
    finally:
        server.stop()
