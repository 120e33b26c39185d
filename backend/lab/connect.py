"""What does a connection cost? The ways to open one, on a server that offers all of them."""

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
"""max_connections of the server during the measurement"""
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
    """empty: the application's own role"""
    pool: str = ""
    """the suffix of the database name in PgBouncer"""
    options: dict[str, str] = field(default_factory=lambda: {"sslmode": "disable"})
    is_cold: bool = False
    """True if PgBouncer must open a server connection for the first query"""


# Each role authenticates by the method in its name; these lines of pg_hba.conf precede those of initdb.
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
    "tls_direct": Way("direct TLS, SCRAM", "server", options={**TLS, "sslnegotiation": "direct"}),
    "tls": Way("TLS, SCRAM", "server", options=TLS),
    "pgbouncer_transaction": Way("PgBouncer, transaction", "pgbouncer", pool="transaction"),
    "pgbouncer_session": Way("PgBouncer, session", "pgbouncer", pool="session"),
    "pgbouncer_verifier": Way("PgBouncer, SCRAM verifier", "pgbouncer", "lab_verifier", pool="transaction"),
    "pgbouncer_prefer": Way("PgBouncer, TLS refused", "pgbouncer", pool="transaction", options={"sslmode": "prefer"}),
    # Its own database name, because RECONNECT empties the pools of all users of a name.
    "pgbouncer_cold": Way("PgBouncer, empty pool", "pgbouncer", pool="statement", is_cold=True),
}


@dataclass(frozen=True)
class Opened:
    """How long a connection took, in milliseconds since the call."""

    connect: float
    answer: float
    """until the answer to the first query"""


class Client:
    """A process that opens connections with either driver."""

    def __init__(self, line: socket.socket) -> None:
        self._words = line.makefile("rw")
        self.libpq: dict[str, str] = self._receive()

    @contextmanager
    def open(self, driver: Driver, options: dict[str, Any], *, ask: bool = True) -> Iterator[Opened]:
        """Open a connection for the length of a block.

        Args:
            driver: the driver that opens it.
            options: libpq's connection parameters.
            ask: run a first query.
        """
        self._send(json.dumps({"driver": driver, "ask": ask, "options": options}))
        yield Opened(**self._receive())
        self._send("")
        self._receive()

    def _send(self, line: str) -> None:
        self._words.write(line + "\n")
        self._words.flush()

    def _receive(self) -> dict[str, Any]:
        if not (line := self._words.readline()):
            raise RuntimeError("the process that opens connections has ended; its error is printed above")
        document: dict[str, Any] = json.loads(line)
        return document


@contextmanager
def client() -> Iterator[Client]:
    """Run a client for the length of a block, without environment variables that libpq would read."""
    command = [sys.executable, "-m", "lab.connect_client"]
    ours, theirs = socket.socketpair()
    with theirs:
        line = theirs.fileno()
        # Ctrl-C must reach this process alone: the client ends when its socket is closed.
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
    """A server that offers every way to connect, and a PgBouncer in front of it."""

    place: Place
    server: Server
    pooler: Server
    database: Database
    passwords: dict[str, str]

    def options(self, way: Way, *, through: Relay | None = None) -> dict[str, Any]:
        """Return libpq's connection parameters for a way.

        Args:
            way: how to connect.
            through: a relay to use instead of the port of the server.
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
        """Make PgBouncer open a new server connection for the next client of this way."""
        self.tell_pooler(f"RECONNECT {self.options(way)['dbname']}")

    def tell_pooler(self, command: str) -> None:
        """Run a command on PgBouncer's console."""
        options = {**self.options(WAYS["pgbouncer_transaction"]), "dbname": "pgbouncer"}
        with closing(psycopg2.connect(**options)) as console:
            console.autocommit = True  # the console has no transactions
            console.cursor().execute(command)


def prepare(place: Place, pooler: Server) -> Bench:
    """Prepare the server for every way: roles, a certificate, max_connections. PgBouncer is already running."""
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
    """Configure PgBouncer with the SCRAM verifier of one role, which it otherwise derives at each login."""
    role, users = "lab_verifier", bench.place.data / "pgbouncer" / "users.txt"
    with closing(psycopg2.connect(**bench.options(WAYS["tcp"]))) as connection:
        verifier = encrypt_password(bench.passwords[role], role, connection, "scram-sha-256")
    superuser_sql(f"ALTER ROLE {role} PASSWORD '{verifier}'")
    users.write_text(users.read_text() + f'"{role}" "{verifier}"\n')
    bench.tell_pooler("RELOAD")


def _write_hba(place: Place) -> None:
    """Put the lab's lines first, and map the operating system's user to its role."""
    cluster = place.data / "timescale"
    (cluster / "pg_ident.conf").write_text(f"lab {place.root.user} lab_peer\n")
    hba = cluster / "pg_hba.conf"
    hba.write_text(HBA + hba.read_text())
