"""The system under test: servers, web, worker and beat, on their own ports and in their own folders."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.request import urlopen

import redis
from honcho.environ import parse_procfile

from config.env import CHECKOUT, Database, Monitor, Queue, Servers, read
from lab.chaos.relay import Relay, relay
from sandbox import debian
from sandbox.isolation import connect
from sandbox.processes import children_of, marked_processes
from sandbox.servers import HOST, Place, Server, broker, timescale
from sandbox.stack import MARK

START_TIMEOUT_S = 120
RESTART_DELAY_S = 1.0
COMMAND_TIMEOUT_S = 120
INPUT_GRACE_S = 2
PORTS_BELOW_EPHEMERAL = 10_000
SETTINGS = {
    "CELERY_WORKER_RUNNING": "",
    "SERVICE_NAME": "",
    "POOLHOUSE_PUBLISH_INTERVAL_S": "1",
    "POOLHOUSE_REPORT_TTL_S": "5",
    "DB_CONNECT_TIMEOUT": "5",
    "INGEST_RESEND_AFTER_S": "3",
    "INGEST_UPLOAD_IDLE_S": "10",
    "INGEST_TIME_LIMIT_S": "60",
    "INGEST_CLEAN_INTERVAL_S": "3",
    "INGEST_INPUT_GRACE_S": str(INPUT_GRACE_S),
    "INGEST_SPOOL_MIN_FREE_BYTES": "0",
}
"""timeouts are shorter than by default, so that each of them expires in a short run, and the disk may become full"""


def quiet_ports(count: int) -> list[int]:
    """Return free ports that outgoing connections do not use while their server is down."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    for port in random.sample(range(max(1024, low - PORTS_BELOW_EPHEMERAL), low), PORTS_BELOW_EPHEMERAL // 2):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            found.append(port)
        if len(found) == count:
            break
    return found


@dataclass(frozen=True)
class Printed:
    """The exit status and output of a command."""

    status: int
    text: str


class Stopped(Exception):
    """The system has been stopped, so that no command can be started."""


@dataclass
class Service:
    """One line of the Procfile, which is restarted whenever it has ended."""

    name: str
    command: str
    environment: Mapping[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    starts_at_s: float = 0.0
    """earliest time of the next start, by the monotonic clock"""

    def keep_up(self) -> None:
        """Restart it RESTART_DELAY_S after it has ended."""
        if self.process is not None and self.process.poll() is not None:
            self.process, self.starts_at_s = None, time.monotonic() + RESTART_DELAY_S
        if self.process is None and time.monotonic() >= self.starts_at_s:
            with self.log.open("a") as log:
                self.process = subprocess.Popen(  # noqa: S602 - a line of the project's Procfile
                    self.command,
                    shell=True,
                    cwd=CHECKOUT,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def children(self) -> list[int]:
        """Return the pids of its running child processes."""
        if self.process is None:
            return []
        try:
            return children_of(self.process.pid)
        except FileNotFoundError:  # it has just ended
            return []

    def kill(self, *, with_children: bool) -> str:
        """Kill its main process, or all its processes; return a description of them."""
        if self.process is None or self.process.poll() is not None:
            return "was not running"
        end = os.killpg if with_children else os.kill
        end(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return f"pid {self.process.pid}{' and its children' if with_children else ''}"

    def kill_child(self, chance: float) -> str:
        """Kill one of its child processes; return a description of it."""
        children = self.children()
        if not children:
            return "had no processes"
        victim = children[int(chance * len(children))]
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        return f"pid {victim}"


@dataclass
class System:
    """All servers and services of a phase."""

    folder: Path
    database: Database
    """direct access, without the relay"""
    queue: Queue
    timescale: Server
    redis: Server
    database_network: Relay
    web_port: int
    environment: Mapping[str, str]
    services: dict[str, Service] = field(default_factory=dict)
    is_stopped: bool = False
    starting: Lock = field(default_factory=Lock)
    """held while a command is started, and while the system is marked as stopped"""

    def start(self) -> None:
        """Start the servers, create the schema, start the services, and wait until they are ready."""
        self.timescale.start()
        self.redis.start()
        migrated = self.manage("migrate", "--verbosity", "0")
        if migrated.status != 0:
            raise RuntimeError(f"manage.py migrate exited with status {migrated.status}:\n{migrated.text}")
        lines = parse_procfile((CHECKOUT / "Procfile").read_text()).processes
        for name, command in lines.items():
            self.services[name] = Service(name, command, self.environment, self.log_folder / f"{name}.log")
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the services were not ready after {START_TIMEOUT_S} s: see {self.log_folder}")
            self.keep_up()
            time.sleep(0.1)

    @property
    def log_folder(self) -> Path:
        """The folder of the services' logs."""
        return self.folder / "log"

    def keep_up(self) -> None:
        """Restart services that have ended, as a supervisor does."""
        for service in self.services.values():
            service.keep_up()

    def stop(self) -> None:
        """Kill all services and stop the servers."""
        with self.starting:
            self.is_stopped = True
        while left := [pid for pid in marked_processes(f"{MARK}={self.folder}") if pid != os.getpid()]:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        self.redis.stop()
        self.timescale.stop()

    def begin(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start a management command; the caller reads its output.

        Raises:
            Stopped: the system has been stopped.
        """
        with self.starting:
            if self.is_stopped:
                raise Stopped
            return subprocess.Popen(
                [sys.executable, str(CHECKOUT / "backend" / "manage.py"), *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def manage(self, *arguments: str) -> Printed:
        """Run a management command; kill it after COMMAND_TIMEOUT_S."""
        process = self.begin(*arguments)
        try:
            text, _ = process.communicate(timeout=COMMAND_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            text, _ = process.communicate()
        return Printed(process.returncode, text)

    @property
    def address(self) -> str:
        """The address of the web."""
        return f"http://{HOST}:{self.web_port}"

    def query(self, sql: str) -> Sequence[tuple[Any, ...]]:
        """Run a query, without the relay and without Django."""
        connection = connect(self.database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                rows: list[tuple[Any, ...]] = cursor.fetchall()
                return rows
        finally:
            connection.close()

    def flush_redis(self) -> None:
        """Delete all data in Redis."""
        with redis.Redis.from_url(self.queue.url) as client:
            client.flushall()

    def _is_ready(self) -> bool:
        try:
            with urlopen(f"{self.address}/readyz", timeout=5):  # noqa: S310 - our own address
                pass
        except OSError:  # refused, or answered with an error status
            return False
        return len(self.services["worker"].children()) > 0


@contextmanager
def running(folder: Path, spool: str) -> Iterator[System]:
    """Run servers and services for the length of a block.

    Args:
        folder: the folder for their data and logs.
        spool: INGEST_SPOOL.

    Raises:
        SandboxError, RuntimeError: something did not start.
    """
    db_port, relayed_port, redis_port, web_port = quiet_ports(4)
    database = read(Database).model_copy(update={"db_port": db_port})
    queue = read(Queue).model_copy(update={"redis_port": redis_port})
    place = Place(debian.cached_root(), folder / "servers", die_with_parent=True)
    place.data.mkdir(parents=True)
    for name in ("log", "tmp"):
        (folder / name).mkdir()
    with relay(relayed_port, db_port) as database_network:
        environment = {
            **os.environ,  # noqa: TID251 - handed on
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # noqa: TID251 - handed on
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(folder / "tmp"),  # killed processes leave their files
            MARK: str(folder),
            "SANDBOX_DIR": str(folder),
            "DB_PORT": str(relayed_port),
            "REDIS_PORT": str(redis_port),
            "WEB_PORT": str(web_port),
            "INGEST_SPOOL": spool,
            **SETTINGS,
        }
        servers = (timescale(place, database, read(Monitor), read(Servers)), broker(place, queue))
        system = System(folder, database, queue, *servers, database_network, web_port, environment)
        try:
            system.start()
            yield system
        finally:
            system.stop()


def crash(server: Server, how: signal.Signals) -> None:
    """Signal a server and wait until it has ended."""
    pid = server.pid
    if pid is None:
        return
    os.kill(pid, how)
    deadline = time.monotonic() + START_TIMEOUT_S
    while server.pid is not None or is_answering(server):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{server.name} did not end {START_TIMEOUT_S} s after {how.name}")
        time.sleep(0.05)


def is_answering(server: Server) -> bool:
    """Return True if a process still listens on the server's port."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, server.port)) == 0
