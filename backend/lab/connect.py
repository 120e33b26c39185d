"""What does a connection cost? Each way to open one, on a server that offers all of them."""

import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg2
from psycopg2.extensions import encrypt_password

from config.env import CHECKOUT, Database, Monitor, Servers, read
from lab.connect_relay import Relay
from sandbox.isolation import superuser_sql
from sandbox.servers import HOST, Place, Server, timescale

Driver = Literal["psycopg2", "psycopg"]

DRIVERS: dict[Driver, str] = {"psycopg2": "psycopg2", "psycopg": "psycopg 3"}
ROOM = 250
"""connections that the server allows while this is measured"""
OPENSSL = (
    "/usr/bin/openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=lab -addext subjectAltName=IP:127.0.0.1 "
    "-keyout /data/tls/server.key -out /data/tls/server.crt"
)


@dataclass(frozen=True)
class Way:
    """A way to open a connection."""

    label: str
    to: Literal["socket", "server", "pgbouncer"]
    user: str = ""
    """the application's own role if none"""
    pool: str = ""
    """the end of the name under which PgBouncer offers the database"""
    options: dict[str, str] = field(default_factory=lambda: {"sslmode": "disable"})
    is_cold: bool = False
    """PgBouncer has to open a connection to the server for the first query"""


# Each role authenticates in the way of its name; lines of pg_hba.conf stand before those of initdb.
ROLES = ("lab_peer", "lab_md5", "lab_password", "lab_scram_1", "lab_verifier")
HBA = """local all lab_peer peer map=lab
host all lab_md5 127.0.0.1/32 md5
hostssl all lab_password 127.0.0.1/32 password
"""
TLS = {"sslmode": "verify-full", "sslrootcert": "tls/server.crt"}

WAYS = {
    "socket_peer": Way("Unix socket, peer", "socket", "lab_peer"),
    "socket": Way("Unix socket, SCRAM", "socket"),
    "tcp_md5": Way("TCP, MD5", "server", "lab_md5"),
    "tcp_scram_1": Way("TCP, SCRAM of 1 iteration", "server", "lab_scram_1"),
    "tcp": Way("TCP, SCRAM", "server"),
    "tls_password": Way("TLS, password", "server", "lab_password", options=TLS),
    "tls_direct": Way("TLS at once, SCRAM", "server", options={**TLS, "sslnegotiation": "direct"}),
    "tls": Way("TLS, SCRAM", "server", options=TLS),
    "pgbouncer_transaction": Way("PgBouncer, transaction", "pgbouncer", pool="transaction"),
    "pgbouncer_session": Way("PgBouncer, session", "pgbouncer", pool="session"),
    "pgbouncer_verifier": Way("PgBouncer, verifier kept", "pgbouncer", "lab_verifier", pool="transaction"),
    "pgbouncer_prefer": Way("PgBouncer, no to TLS", "pgbouncer", pool="transaction", options={"sslmode": "prefer"}),
    # A name of its own: to empty a pool empties those of all users of the name.
    "pgbouncer_cold": Way("PgBouncer, pool empty", "pgbouncer", pool="statement", is_cold=True),
}


@dataclass(frozen=True)
class Opened:
    """How long a connection took, in milliseconds from the call."""

    connect: float
    answer: float
    """to the first query as well"""


class Client:
    """A process that opens connections with either driver."""

    def __init__(self, line: socket.socket) -> None:
        self._words = line.makefile("rw")
        self.libpq: dict[str, str] = self._hear()

    @contextmanager
    def open(self, driver: Driver, options: dict[str, Any], *, ask: bool = True) -> Iterator[Opened]:
        """Have a connection for the length of a block.

        Args:
            driver: which opens it.
            options: as libpq knows them.
            ask: ask the server a first question.
        """
        self._tell(json.dumps({"driver": driver, "ask": ask, "options": options}))
        yield Opened(**self._hear())
        self._tell("")
        self._hear()

    def _tell(self, line: str) -> None:
        self._words.write(line + "\n")
        self._words.flush()

    def _hear(self) -> dict[str, Any]:
        if not (line := self._words.readline()):
            raise RuntimeError("the process that opens connections has ended; its last words are above")
        document: dict[str, Any] = json.loads(line)
        return document


@contextmanager
def client() -> Iterator[Client]:
    """Run a client for the length of a block; no variable that libpq reads leaks into it."""
    command = [sys.executable, "-m", "lab.connect_client"]
    ours, theirs = socket.socketpair()
    with theirs:
        line = theirs.fileno()
        # Ctrl-C is ours to heed: it ends when the line to it does.
        process = subprocess.Popen(
            command, cwd=CHECKOUT / "backend", env={}, stdin=line, stdout=line, start_new_session=True
        )
    with process, ours:
        try:
            yield Client(ours)
        finally:
            ours.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Bench:
    """A server that offers every way, and PgBouncer before it."""

    place: Place
    server: Server
    pooler: Server
    database: Database
    passwords: dict[str, str]

    def options(self, way: Way, *, through: Relay | None = None) -> dict[str, Any]:
        """Say how libpq opens a connection in this way.

        Args:
            way: which.
            through: a relay that stands before the way's port.
        """
        port = {"socket": self.server.port, "server": self.server.port, "pgbouncer": self.pooler.port}[way.to]
        options: dict[str, Any] = {
            "host": str(self.place.data / "run") if way.to == "socket" else HOST,
            "port": through.port if through else port,
            "user": way.user or self.database.db_user,
            "password": self.passwords[way.user],
            "dbname": "_".join(filter(None, (self.database.db_name, way.pool))),
            "gssencmode": "disable",
            **way.options,
        }
        if "sslrootcert" in options:
            options["sslrootcert"] = str(self.place.data / options["sslrootcert"])
        return options

    def empty_pool(self, way: Way) -> None:
        """Let PgBouncer log in at the server anew when the pool of this way has a client next."""
        self.tell_pooler(f"RECONNECT {self.options(way)['dbname']}")

    def tell_pooler(self, command: str) -> None:
        """Have PgBouncer's console do something."""
        options = {**self.options(WAYS["pgbouncer_transaction"]), "dbname": "pgbouncer"}
        with closing(psycopg2.connect(**options)) as console:
            console.autocommit = True  # it knows no transactions
            console.cursor().execute(command)


def prepare(place: Place, pooler: Server) -> Bench:
    """Make the server offer every way: roles, a certificate, room for many connections. PgBouncer runs."""
    database = read(Database)
    passwords = {"": database.db_pass.get_secret_value(), **{role: secrets.token_hex(16) for role in ROLES}}
    encryptions = {
        "lab_md5": "SET password_encryption = md5;",
        "lab_scram_1": "SET scram_iterations = 1;",
    }
    for role in ROLES:
        superuser_sql(f"{encryptions.get(role, '')} CREATE ROLE {role} LOGIN PASSWORD '{passwords[role]}'")
    (place.data / "tls").mkdir()
    place.run(OPENSSL.split())
    _write_hba(place)
    superuser_sql(f"ALTER SYSTEM SET max_connections = {ROOM}")
    superuser_sql("ALTER SYSTEM SET ssl = on")
    superuser_sql("ALTER SYSTEM SET ssl_cert_file = '/data/tls/server.crt'")
    superuser_sql("ALTER SYSTEM SET ssl_key_file = '/data/tls/server.key'")
    server = timescale(place, database, read(Monitor), read(Servers))
    server.stop()
    server.start()
    bench = Bench(place, server, pooler, database, passwords)
    _keep_verifier(bench)
    return bench


def _keep_verifier(bench: Bench) -> None:
    """Let PgBouncer know one role by what the server knows of it, from which it need not compute the same each time."""
    role, users = "lab_verifier", bench.place.data / "pgbouncer" / "users.txt"
    with closing(psycopg2.connect(**bench.options(WAYS["tcp"]))) as connection:
        verifier = encrypt_password(bench.passwords[role], role, connection, "scram-sha-256")
    superuser_sql(f"ALTER ROLE {role} PASSWORD '{verifier}'")
    users.write_text(users.read_text() + f'"{role}" "{verifier}"\n')
    bench.tell_pooler("RELOAD")


def _write_hba(place: Place) -> None:
    """Put the lab's lines first; whoever runs the servers is `postgres` to them."""
    cluster = place.data / "timescale"
    (cluster / "pg_ident.conf").write_text(f"lab {place.root.user} lab_peer\n")
    hba = cluster / "pg_hba.conf"
    hba.write_text(HBA + hba.read_text())
