"""The sandbox's servers: those that no URL in the environment replaces."""

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
    """Return the folder for the servers' data and the logs."""
    return CHECKOUT / read(Servers).sandbox_dir


def own_servers(*, with_pgbouncer: bool = False) -> list[Server]:
    """Return the servers to start; DATABASE_URL, CELERY_BROKER_URL and PGBOUNCER_URL each replace one."""
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
    """Return True if the web's strategy connects through a PgBouncer that the sandbox starts."""
    is_own = read(Pooler).pgbouncer_url is None and read(Monitor).pgbouncer_host in ("", "localhost", HOST)
    return is_own and STRATEGIES[get_strategy()].pool_mode is not None


def _require_passwords(monitor: Monitor, servers: Servers) -> None:
    passwords = {"DB_MONITOR_PASS": monitor.db_monitor_pass, "POSTGRES_PASSWORD": servers.postgres_password}
    for name, password in passwords.items():
        if not password.get_secret_value():
            raise SandboxError(f"{name} is not set. Run scripts/env to generate it.")


def start(*, with_pgbouncer: bool = False) -> list[Server]:
    """Start the servers that are not running, and install what they need; print the steps, return the started servers.

    Raises:
        SandboxError: a server did not start; those started before it are stopped.
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
        for name, host, port in _existing_servers():
            with step(f"existing server {host}:{port} ({name})"):
                if not is_listening(port, host):
                    raise SandboxError(
                        f"{name}: no server accepts connections at {host}:{port}; start it, or unset {name}"
                    )
    except BaseException:
        stop(started)
        raise
    return started


def prepare() -> None:
    """Install the tools and packages of the servers; print nothing if they are installed."""
    root = debian.cached_root()
    if root.path.exists():
        debian.ensure_tools()
        return
    with step("tools for a Debian root folder"):
        debian.ensure_tools()
    with step(f"PostgreSQL, TimescaleDB, Redis, PgBouncer from {debian.RELEASE}"):
        debian.make(root)


def stop(servers: list[Server]) -> int:
    """Stop the running ones, last first; return how many there were."""
    running = [server for server in reversed(servers) if server.pid is not None]
    for server in running:
        with step(f"stop {server.name}"):
            server.stop()
    return len(running)


def stop_all() -> int:
    """Stop all servers of this checkout; return how many were running."""
    return stop(own_servers(with_pgbouncer=True))


def print_status() -> bool:
    """Print a line for each server; return True if all required ones are running."""
    complete = True
    for server in own_servers(with_pgbouncer=True):
        pid = server.pid
        state = f"running, pid {pid}" if pid else "stopped"
        print(f"  {server.name:<10} 127.0.0.1:{server.port:<6} {state}")
        complete &= pid is not None or (server.name == "pgbouncer" and not needs_pgbouncer())
    for name, host, port in _existing_servers():
        answers = is_listening(port, host)
        print(f"  {name:<10} {host}:{port:<6} {'answers' if answers else 'does not answer'}")
        complete &= answers
    return complete


def _existing_servers() -> list[tuple[str, str, int]]:
    broker_url = read(Queue).celery_broker_url
    existing = []
    databases = {"DATABASE_URL": read(Database).database_url, "PGBOUNCER_URL": read(Pooler).pgbouncer_url}
    for name, url in databases.items():
        if url is not None:
            (host,) = url.hosts()
            existing.append((name, host["host"] or HOST, host["port"] or 5432))
    if broker_url is not None:
        existing.append(("CELERY_BROKER_URL", broker_url.host or HOST, broker_url.port or 6379))
    return existing
