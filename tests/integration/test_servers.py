"""The servers as processes: starting, finding, stopping."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest

from config.env import CHECKOUT, Database, Monitor, Queue, Servers, read
from sandbox.errors import SandboxError
from sandbox.servers import Place, Server, broker, pgbouncer, timescale
from sandbox.services import own_servers
from tests.plugin import free_ports


@pytest.fixture
def queue() -> Queue:
    (port,) = free_ports(1)
    return read(Queue).model_copy(update={"redis_port": port})


@pytest.fixture
def place(servers: Place, tmp_path: Path) -> Place:
    return Place(servers.root, tmp_path, die_with_parent=True)


def test_a_server_starts_once_is_found_by_its_pid_and_stops(place: Place, queue: Queue) -> None:
    server = broker(place, queue)
    assert server.pid is None
    server.start()
    try:
        pid = server.pid
        assert pid
        assert server.answers()
        server.start()
        assert server.pid == pid, "a second start leaves the first alone"
    finally:
        server.stop()
    assert server.pid is None
    assert has_ended(pid)
    assert not server.answers()


def test_a_pid_file_with_the_pid_of_another_program_is_ignored(place: Place, queue: Queue) -> None:
    (place.data / "redis").mkdir()
    (place.data / "redis/redis.pid").write_text(str(os.getpid()))
    assert broker(place, queue).pid is None


def test_a_port_in_use_is_reported_with_its_variable(place: Place, queue: Queue) -> None:
    with socket.create_server(("127.0.0.1", queue.redis_port)), pytest.raises(SandboxError) as refused:
        broker(place, queue).start()
    assert f"port {queue.redis_port} is in use by another program; set REDIS_PORT in .env" in str(refused.value)


def test_the_log_of_a_server_that_does_not_start_is_shown(place: Place, queue: Queue) -> None:
    (place.data / "redis").mkdir(parents=True)
    (place.data / "redis/appendonlydir").write_text("in the way of Redis's own folder")
    with pytest.raises(SandboxError, match=r"(?s)redis did not start; the last lines of .*redis\.log:.*append"):
        broker(place, queue).start()


@pytest.mark.parametrize("name", ["DB_MONITOR_PASS", "POSTGRES_PASSWORD"])
def test_servers_are_not_started_without_a_password_for_each_role(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(SandboxError, match=rf"{name} is not set\. Run scripts/env"):
        own_servers()


def test_servers_listen_only_on_loopback(servers: Place) -> None:
    ports = {read(Database).db_port, read(Queue).redis_port}
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    ]
    addresses = {address for address, port in (entry.split(":") for entry in listening) if int(port, 16) in ports}
    assert addresses == {"0100007F"}


def test_pgbouncer_passes_application_name_on(servers: Place) -> None:
    database, ports = read(Database), read(Monitor)
    server = pgbouncer(servers, database, ports)
    server.start()
    try:
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=ports.pgbouncer_port,
            user=database.db_user,
            password=database.db_pass.get_secret_value(),
            dbname=f"{database.db_name}_session",
            application_name="through the pooler",
        )
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('application_name'), inet_server_port()")
            assert cursor.fetchone() == ("through the pooler", database.db_port)
        connection.close()
        with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
            psycopg2.connect(
                host="127.0.0.1",
                port=ports.pgbouncer_port,
                user=database.db_user,
                password="wrong",
                dbname=f"{database.db_name}_session",
            )
    finally:
        server.stop()


def has_ended(pid: int) -> bool:
    """Return True for an ended process, even a zombie: its command line is empty."""
    try:
        return not Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return True


# The database server's data.


def cluster_of(place: Place) -> Server:
    (port,) = free_ports(1)
    database = read(Database).model_copy(update={"db_port": port})
    return timescale(place, database, read(Monitor), read(Servers))


def test_data_that_the_sandbox_did_not_make_is_kept(place: Place) -> None:
    (place.data / "timescale").mkdir()
    (place.data / "timescale/PG_VERSION").write_text("17\n")
    with pytest.raises(
        SandboxError, match=r"timescale is not empty.* Move the folder away, or set another SANDBOX_DIR"
    ):
        cluster_of(place).start()
    assert (place.data / "timescale/PG_VERSION").read_text() == "17\n"


def test_an_interrupted_first_start_is_repeated(place: Place) -> None:
    (place.data / "timescale").mkdir()
    (place.data / "timescale/half").touch()
    (place.data / "timescale.unfinished").touch()
    server = cluster_of(place)
    server.start()
    server.stop()
    assert not (place.data / "timescale/half").exists()
    assert not (place.data / "timescale.unfinished").exists()
    (place.data / "timescale/poolhouse-ready").unlink()
    with pytest.raises(SandboxError, match="is not empty"):
        cluster_of(place).start()
    assert (place.data / "timescale/PG_VERSION").exists()


def test_only_the_spool_of_the_experiment_is_removed(tmp_path: Path) -> None:
    program = (
        "import os; from sandbox.isolation import isolate, remove_spool; isolate('x'); "
        "own = os.environ['INGEST_SPOOL']; "
        f"os.environ['INGEST_SPOOL'] = {str(tmp_path)!r}; remove_spool(); print(os.path.exists(own))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'backend'}"}
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "False\n"
    assert tmp_path.exists()
