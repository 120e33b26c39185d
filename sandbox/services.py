"""The sandbox's own servers: those that no URL in the environment replaces."""

from pathlib import Path

from config.database import get_strategy
from config.env import CHECKOUT, Database, Monitor, Pooler, Queue, Servers, read
from config.strategies import STRATEGIES
from sandbox import debian
from sandbox.errors import SandboxError
from sandbox.processes import is_listening
from sandbox.servers import HOST, Place, Server, broker, pgbouncer, timescale
from sandbox.steps import step


def sandbox_dir() -> Path:
    """Give the folder of the servers' data and of the logs."""
    return CHECKOUT / read(Servers).sandbox_dir


def own_servers(*, with_pgbouncer: bool = False) -> list[Server]:
    """The servers to start: DATABASE_URL, CELERY_BROKER_URL and PGBOUNCER_URL each stand for one that already runs."""
    database, queue, monitor, servers = read(Database), read(Queue), read(Monitor), read(Servers)
    place = Place(debian.cached_root(), sandbox_dir())
    wanted = []
    if database.database_url is None:
        _require_passwords(monitor, servers)
        wanted.append(timescale(place, database, monitor, servers))
    if queue.celery_broker_url is None:
        wanted.append(broker(place, queue))
    if database.database_url is None and (with_pgbouncer or needs_pgbouncer()):
        wanted.append(pgbouncer(place, database, monitor))
    return wanted


def needs_pgbouncer() -> bool:
    """Say whether the web's strategy goes through a PgBouncer of this machine's own."""
    is_own = read(Pooler).pgbouncer_url is None and read(Monitor).pgbouncer_host in ("", "localhost", HOST)
    return is_own and STRATEGIES[get_strategy()].pool_mode is not None


def _require_passwords(monitor: Monitor, servers: Servers) -> None:
    passwords = {"DB_MONITOR_PASS": monitor.db_monitor_pass, "POSTGRES_PASSWORD": servers.postgres_password}
    for name, password in passwords.items():
        if not password.get_secret_value():
            raise SandboxError(f"{name} is not set. Run scripts/env to generate it.")


def start(*, with_pgbouncer: bool = False) -> list[Server]:
    """Start what does not run, installing what it needs, a line for each step; give what was started.

    Raises:
        SandboxError: a server did not start; those before it are stopped again.
    """
    wanted = own_servers(with_pgbouncer=with_pgbouncer)
    if wanted:
        prepare()
    started: list[Server] = []
    try:
        for server in wanted:
            if server.pid is None:
                with step(f"{server.name} on 127.0.0.1:{server.port}"):
                    server.start()
                started.append(server)
        for name, host, port in _servers_of_others():
            with step(f"{name} at {host}:{port}, which runs already"):
                if not is_listening(port, host):
                    raise SandboxError(f"nothing answers at {host}:{port}, which {name} names")
    except BaseException:
        stop(started)
        raise
    return started


def prepare() -> None:
    """Install what the servers run from; where nothing is missing it says nothing."""
    root = debian.cached_root()
    if root.path.exists():
        debian.ensure_tools()
        return
    with step("tools that make and enter a Debian root folder"):
        debian.ensure_tools()
    with step(f"PostgreSQL, TimescaleDB, Redis, PgBouncer from {debian.RELEASE}"):
        debian.make(root)


def stop(servers: list[Server]) -> int:
    """Stop those that run, the last first; give how many there were."""
    running = [server for server in reversed(servers) if server.pid is not None]
    for server in running:
        with step(f"stop {server.name}"):
            server.stop()
    return len(running)


def stop_all() -> int:
    """Stop every server of this checkout; give how many ran."""
    return stop(own_servers(with_pgbouncer=True))


def print_status() -> bool:
    """Print a line for each server; True if all that are needed run."""
    complete = True
    for server in own_servers(with_pgbouncer=True):
        pid = server.pid
        state = f"runs, pid {pid}" if pid else "stopped"
        print(f"  {server.name:<10} 127.0.0.1:{server.port:<6} {state}")
        complete &= pid is not None or (server.name == "pgbouncer" and not needs_pgbouncer())
    for name, host, port in _servers_of_others():
        answers = is_listening(port, host)
        print(f"  {name:<10} {host}:{port:<6} {'answers' if answers else 'does not answer'}")
        complete &= answers
    return complete


def _servers_of_others() -> list[tuple[str, str, int]]:
    broker_url = read(Queue).celery_broker_url
    others = []
    databases = {"DATABASE_URL": read(Database).database_url, "PGBOUNCER_URL": read(Pooler).pgbouncer_url}
    for name, url in databases.items():
        if url is not None:
            (host,) = url.hosts()
            others.append((name, host["host"] or HOST, host["port"] or 5432))
    if broker_url is not None:
        others.append(("CELERY_BROKER_URL", broker_url.host or HOST, broker_url.port or 6379))
    return others
