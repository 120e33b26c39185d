"""TLS to the database server with DB_SSLMODE: connections of the application and of PgBouncer."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from config.env import Database, Monitor, read
from lab.connect import OPENSSL
from sandbox.servers import Place, pgbouncer
from tests import forked
from tests.conftest import await_that
from tests.plugin import superuser_sql

IS_ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
ASKS = f"from django.db import connection as c; k = c.cursor(); k.execute({IS_ENCRYPTED!r}); print(k.fetchone()[0])"


@pytest.fixture(scope="module")
def certificate(servers: Place) -> Iterator[Path]:
    """Return the file of the server's self-signed certificate during these tests."""
    folder = servers.data / "tls"
    folder.mkdir()
    servers.run(OPENSSL.split())
    settings = {"ssl_cert_file": "/data/tls/server.crt", "ssl_key_file": "/data/tls/server.key", "ssl": "on"}
    for name, value in settings.items():
        superuser_sql(f"ALTER SYSTEM SET {name} = '{value}'")
    superuser_sql("SELECT pg_reload_conf()")
    await_that(_takes_tls, "TLS")
    yield folder / "server.crt"
    for name in settings:
        superuser_sql(f"ALTER SYSTEM RESET {name}")
    superuser_sql("SELECT pg_reload_conf()")
    await_that(lambda: not _takes_tls(), "the end of TLS")
    shutil.rmtree(folder)


def _connect(port: int, database: Database, name: str, sslmode: str) -> "psycopg2.extensions.connection":
    return psycopg2.connect(
        host="127.0.0.1",
        port=port,
        user=database.db_user,
        password=database.db_pass.get_secret_value(),
        dbname=name,
        sslmode=sslmode,
    )


def _takes_tls() -> bool:
    database = read(Database)
    try:
        _connect(database.db_port, database, database.db_name, "require").close()
    except psycopg2.OperationalError:
        return False
    return True


def ask(**variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a command that prints whether its connection is encrypted."""
    return forked.manage("shell", "--no-imports", "--command", ASKS, env={**os.environ, **variables})


@pytest.mark.parametrize("strategy", ["persistent", "native"])
def test_the_application_verifies_the_server(certificate: Path, strategy: str) -> None:
    variables = {"DB_POOL_STRATEGY": strategy, "CELERY_WORKER_RUNNING": "", "DB_SSLROOTCERT": str(certificate)}
    answer = ask(DB_SSLMODE="verify-full", **variables)
    assert answer.stdout.split()[-1:] == ["True"], answer.stderr
    assert ask(DB_SSLMODE="disable", **variables).stdout.split()[-1:] == ["False"]


def test_a_certificate_of_another_authority_is_refused(certificate: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.crt"
    other.write_text("")
    answer = ask(DB_SSLMODE="verify-full", DB_SSLROOTCERT=str(other))
    assert answer.returncode != 0
    assert "certificate" in answer.stderr


@pytest.mark.parametrize(("sslmode", "is_encrypted"), [("verify-ca", True), ("disable", False)])
def test_pgbouncer_verifies_the_server_too(certificate: Path, servers: Place, sslmode: str, is_encrypted: bool) -> None:
    tls = {"db_sslmode": sslmode, "db_sslrootcert": "/data/tls/server.crt"}
    database, monitor = read(Database).model_copy(update=tls), read(Monitor)
    pooler = pgbouncer(servers, database, monitor)
    pooler.start()
    try:
        name = f"{database.db_name}_transaction"
        with closing(_connect(monitor.pgbouncer_port, database, name, "disable")) as opened, opened.cursor() as cursor:
            cursor.execute(IS_ENCRYPTED)
            assert cursor.fetchone() == (is_encrypted,)
    finally:
        pooler.stop()
