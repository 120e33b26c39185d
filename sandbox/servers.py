"""The servers as processes: PostgreSQL with TimescaleDB, Redis and PgBouncer, configured as in containers."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2
import redis

from config.env import CHECKOUT, Database, Monitor, Pooler, Queue, Servers, read
from sandbox.debian import RootFolder
from sandbox.errors import SandboxError
from sandbox.processes import is_listening, stop_process

HOST = "127.0.0.1"
POSTGRES_BIN = "/usr/lib/postgresql/17/bin"
START_TIMEOUT_S = 180  # long enough for a busy machine; a server that exits is noticed immediately
STOP_TIMEOUT_S = 30
BINDS = {CHECKOUT / "timescale": "/etc/timescale", CHECKOUT / "broker": "/etc/redis"}


@dataclass(frozen=True)
class Place:
    """Where servers run and keep their data."""

    root: RootFolder
    data: Path
    """contains a folder for each server; the servers see it as /data"""
    die_with_parent: bool = False

    def command(self, argv: list[str]) -> list[str]:
        """Return a command that runs in the root folder with this data."""
        return self.root.command(argv, binds=BINDS, data=self.data, die_with_parent=self.die_with_parent)

    def run(self, argv: list[str], *, env: Mapping[str, str] | None = None, stdin: str = "") -> None:
        """Run a command and wait for its end.

        Raises:
            SandboxError: its exit status is not 0; the text has its output.

        """
        answer = subprocess.run(
            self.command(argv), env=env and {**os.environ, **env}, input=stdin, capture_output=True, text=True
        )
        if answer.returncode != 0:
            raise SandboxError(
                f"{Path(argv[0]).name} exited with status {answer.returncode}:\n"
                f"{(answer.stderr or answer.stdout).strip()}"
            )


@dataclass(frozen=True)
class Server:
    """A server: how to start, find and stop it."""

    name: str
    program: str
    """part of its command line, which distinguishes the server from another process with the pid of a stale pid file"""
    place: Place
    port: int
    port_variable: str
    argv: list[str]
    pid_file: str
    """relative to the data folder; its first line is the pid"""
    answers: Callable[[], bool]
    prepare: Callable[[], None] = lambda: None
    complete: Callable[[], None] = lambda: None
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: str = ""
    stop_signal: signal.Signals = signal.SIGTERM
    children: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    """processes that this one has started and must wait for"""

    @property
    def log(self) -> Path:
        """Return the file with the server's output."""
        return self.place.data / "log" / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Return the pid of the running server, or None."""
        try:
            pid = int((self.place.data / self.pid_file).read_text().split()[0])
            command = Path(f"/proc/{pid}/cmdline").read_text()
        except (OSError, ValueError, IndexError):
            return None
        # After a reboot, another program may have the pid of a stale file.
        return pid if self.program in command else None

    def start(self) -> None:
        """Start the server unless it is running, and wait until it answers.

        Raises:
            SandboxError: the port is in use, or the server did not start; the text has the end of its log.

        """
        if self.pid is not None:
            return
        if is_listening(self.port):
            raise SandboxError(
                f"{self.name}: port {self.port} is in use by another program; "
                f"set {self.port_variable} in .env to a free port"
            )
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.prepare()
        with self.log.open("a") as log:
            process = subprocess.Popen(
                self.place.command(self.argv),
                env={**os.environ, **self.env},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.children.append(process)
        if process.stdin is not None:
            process.stdin.write(self.stdin.encode())
            process.stdin.close()
        try:
            self._wait_until_it_answers(process)
            self.complete()
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_answers(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])
                raise SandboxError(f"{self.name} did not start; the last lines of {self.log}:\n{tail}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server with its stop signal, and wait for its end."""
        if (pid := self.pid) is not None:
            stop_process(pid, self.stop_signal, STOP_TIMEOUT_S)
        while self.children:
            child = self.children.pop()
            child.terminate()  # in case the server has not written its pid file
            child.wait()


@dataclass(frozen=True)
class _Cluster:
    """A PostgreSQL cluster and its superuser."""

    place: Place
    database: Database
    monitor: Monitor
    password: str

    @property
    def folder(self) -> Path:
        """Return the data directory."""
        return self.place.data / "timescale"

    @property
    def _ready(self) -> Path:
        return self.folder / "poolhouse-ready"

    @property
    def _unfinished(self) -> Path:
        """Return the file that marks an incomplete first start; not in the folder, which initdb needs empty."""
        return self.place.data / "timescale.unfinished"

    def make(self) -> None:
        """Run initdb, unless the cluster exists.

        Raises:
            SandboxError: the folder has files that were not left by an interrupted first start.
        """
        (self.place.data / "run").mkdir(parents=True, exist_ok=True)
        if self._ready.exists():
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            self._remove_unfinished()
        self._unfinished.touch()
        authentication = ["--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--pwfile=/dev/stdin"]
        self.place.run(
            [f"{POSTGRES_BIN}/initdb", "-D", "/data/timescale", "-U", "postgres", "-E", "UTF8", *authentication],
            env={"LC_ALL": "C.UTF-8"},
            stdin=f"{self.password}\n",
        )

    def _remove_unfinished(self) -> None:
        if not self._unfinished.exists():
            raise SandboxError(
                f"{self.folder} is not empty and was not made by the sandbox: neither {self._ready.name} in it nor "
                f"{self._unfinished.name} beside it exists. Move the folder away, or set another SANDBOX_DIR in .env."
            )
        self.place.run(["/bin/rm", "-r", "/data/timescale"])

    def make_database(self) -> None:
        """Create the roles and the database, unless they exist; the server must be running."""
        if self._ready.exists():
            return
        superuser = {
            "PGHOST": HOST,
            "PGPORT": str(self.database.db_port),
            "PGUSER": "postgres",
            "PGPASSWORD": self.password,
        }
        application = {
            "DB_NAME": self.database.db_name,
            "DB_USER": self.database.db_user,
            "DB_PASS": self.database.db_pass.get_secret_value(),
            "DB_MONITOR_USER": self.monitor.db_monitor_user,
            "DB_MONITOR_PASS": self.monitor.db_monitor_pass.get_secret_value(),
        }
        self.place.run(["/bin/sh", "/etc/timescale/init.sh"], env={**superuser, **application})
        # In this order: without either file, a later start removes nothing.
        self._unfinished.unlink(missing_ok=True)
        self._ready.touch()

    def answers(self) -> bool:
        """Return True if the superuser can connect.

        Raises:
            SandboxError: the cluster has another password.
        """
        port = self.database.db_port
        try:
            psycopg2.connect(host=HOST, port=port, user="postgres", password=self.password, dbname="postgres").close()
        except psycopg2.OperationalError as error:
            if "authentication failed" in str(error):
                raise SandboxError(
                    f"the cluster in {self.folder} has another POSTGRES_PASSWORD than .env: "
                    "restore the old .env, or remove the folder to start with empty data"
                ) from None
            return False
        return True


def timescale(place: Place, database: Database, monitor: Monitor, servers: Servers) -> Server:
    """Return the server PostgreSQL with TimescaleDB, on DB_PORT."""
    cluster = _Cluster(place, database, monitor, servers.postgres_password.get_secret_value())
    options = {
        "config_file": "/etc/timescale/postgresql.conf",
        "port": str(database.db_port),
        "listen_addresses": HOST,
        "unix_socket_directories": "/data/run",
    }
    settings = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
    return Server(
        name="timescale",
        program="postgres",
        place=place,
        port=database.db_port,
        port_variable="DB_PORT",
        argv=[f"{POSTGRES_BIN}/postgres", "-D", "/data/timescale", *settings],
        pid_file="timescale/postmaster.pid",
        answers=cluster.answers,
        prepare=cluster.make,
        complete=cluster.make_database,
        env={"LC_ALL": "C.UTF-8"},
        stop_signal=signal.SIGINT,  # fast shutdown: sessions are terminated
    )


def broker(place: Place, queue: Queue) -> Server:
    """Return the server Redis, on REDIS_PORT."""
    password = queue.redis_password.get_secret_value()

    def answers() -> bool:
        client = redis.Redis(host=HOST, port=queue.redis_port, password=password)
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False
        finally:
            client.close()

    # The password goes in through standard input, where no list of processes shows it.
    private = f'port {queue.redis_port}\ndir /data/redis\npidfile /data/redis/redis.pid\nrequirepass "{password}"\n'
    return Server(
        name="redis",
        program="redis-server",
        place=place,
        port=queue.redis_port,
        port_variable="REDIS_PORT",
        argv=["/usr/bin/redis-server", "/etc/redis/redis.conf", "-"],
        pid_file="redis/redis.pid",
        answers=answers,
        prepare=lambda: (place.data / "redis").mkdir(parents=True, exist_ok=True),
        stdin=private,
    )


def pgbouncer(
    place: Place, database: Database, monitor: Monitor, pooler: Pooler | None = None, *, admin: str = ""
) -> Server:
    """PgBouncer in front of the database, on PGBOUNCER_PORT.

    Args:
        place: where it keeps its files.
        database: what it stands before, and for which role.
        monitor: its port, and the role that may look at its figures.
        pooler: its sizes; none: the environment's.
        admin: a role that may also command it.
    """
    sizes = pooler or read(Pooler)
    return Server(
        name="pgbouncer",
        program="pgbouncer",
        place=place,
        port=monitor.pgbouncer_port,
        port_variable="PGBOUNCER_PORT",
        argv=["/bin/sh", "/etc/timescale/pgbouncer.sh"],
        pid_file="pgbouncer/pgbouncer.pid",
        answers=lambda: is_listening(monitor.pgbouncer_port),
        prepare=lambda: _prepare_pgbouncer(place.data / "pgbouncer"),
        stop_signal=signal.SIGQUIT,  # immediate shutdown: clients are disconnected
        env={
            "PATH": "/usr/sbin:/usr/bin:/bin",
            "DB_HOST": HOST,
            "DB_PORT": str(database.db_port),
            "DB_NAME": database.db_name,
            "DB_USER": database.db_user,
            "DB_PASS": database.db_pass.get_secret_value(),
            "DB_MONITOR_USER": monitor.db_monitor_user,
            "DB_MONITOR_PASS": monitor.db_monitor_pass.get_secret_value(),
            "DB_SSLMODE": database.db_sslmode or "",
            "DB_SSLROOTCERT": database.db_sslrootcert,
            "DB_STATEMENT_TIMEOUT": str(database.db_statement_timeout),
            "PGBOUNCER_LISTEN": HOST,
            "PGBOUNCER_PORT": str(monitor.pgbouncer_port),
            "PGBOUNCER_DIR": "/data/pgbouncer",
            "PGBOUNCER_ADMIN_USERS": admin,
            "PGBOUNCER_POOL_SIZE": str(sizes.pgbouncer_pool_size),
            "PGBOUNCER_RESERVE_POOL_SIZE": str(sizes.pgbouncer_reserve_pool_size),
            "PGBOUNCER_MAX_CLIENT_CONN": str(sizes.pgbouncer_max_client_conn),
            "PGBOUNCER_QUERY_WAIT_TIMEOUT_S": str(sizes.pgbouncer_query_wait_timeout_s),
        },
    )


def _prepare_pgbouncer(folder: Path) -> None:
    """Make the folder, and remove the pid file of a killed PgBouncer.

    PgBouncer does not start while a process has the pid in that file: a killed one until its parent has waited for it,
    or another program after a reboot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pgbouncer.pid").unlink(missing_ok=True)
