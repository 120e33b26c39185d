"""Metric families of the database servers and PgBouncer."""

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from poolhouse.metrics.samples import counter, gauge
from poolhouse.metrics.snapshot import PGBOUNCER
from poolhouse.overview import status as overview
from poolhouse.overview.facts import either_holder
from poolhouse.overview.status import ServerAnswers, Status
from poolhouse.servers.pgbouncer import PgBouncer, PgBouncerStats
from poolhouse.servers.server import ServerFacts

PGBOUNCER_TOTALS: dict[str, Callable[[PgBouncerStats], float]] = {
    "transactions": lambda stats: stats.transactions,
    "queries": lambda stats: stats.queries,
    "received_bytes": lambda stats: stats.received_bytes,
    "sent_bytes": lambda stats: stats.sent_bytes,
    "wait_seconds": lambda stats: stats.wait_s,
}


SERVER = ("server",)


def of_servers(status: Status) -> Iterator[Metric]:
    """Yield the connection limits, connections and blocked sessions of each server."""
    servers = status.servers
    numbers: dict[str, tuple[str, Callable[[ServerFacts], float]]] = {
        "max_connections": ("max_connections", lambda facts: facts.capacity.max_connections),
        "usable_connections": ("Connections that ordinary roles can have", lambda facts: facts.capacity.usable),
        "used_connections": ("Connections open, without the monitor's own", lambda facts: facts.used),
        "room_connections": (
            "Connections that the application can still open within the limits of server, role and database",
            lambda facts: facts.room_left,
        ),
        "blocked_sessions": (
            "Sessions that wait for a lock",
            lambda facts: len({block.pid for block in facts.blocks}),
        ),
        "longest_block_seconds": (
            "Longest time that a session has been waiting for a lock",
            lambda facts: max((block.wait_s for block in facts.blocks), default=0.0),
        ),
        "longest_idle_in_transaction_seconds": (
            "Longest time that a session has been idle in a transaction",
            lambda facts: max((one.state_age_s or 0.0 for one in facts.idle_in_transaction), default=0.0),
        ),
    }
    for name, (text, read) in numbers.items():
        yield gauge(
            f"poolhouse_server_{name}", text, SERVER, [((server.name,), read(server.facts)) for server in servers]
        )
    yield gauge(
        "poolhouse_server_reserved_connections",
        "Connections reserved for superusers and for roles with pg_use_reserved_connections",
        ("server", "role"),
        (
            ((server.name, role), count)
            for server in servers
            for role, count in (
                ("superuser", server.facts.capacity.superuser_reserved),
                ("pg_use_reserved_connections", server.facts.capacity.reserved),
            )
        ),
    )
    yield from _of_limits(servers)
    yield gauge(
        "poolhouse_server_connections",
        "Connections open; the service is empty where no reporting process holds them",
        ("server", "service", "state"),
        sorted(Counter(_holders(status)).items()),
    )


def _of_limits(servers: list[ServerAnswers]) -> Iterator[Metric]:
    limits = [
        ((server.name, one.kind, one.name), server.facts, one) for server in servers for one in server.facts.limits
    ]
    labels = ("server", "kind", "name")
    text = "CONNECTION LIMIT of a role or a database of the application"
    yield gauge("poolhouse_server_limit_connections", text, labels, ((of, one.connections) for of, _, one in limits))
    yield gauge(
        "poolhouse_server_limit_used_connections",
        "Connections open that count against the CONNECTION LIMIT",
        labels,
        ((of, facts.used_of(one)) for of, facts, one in limits),
    )


def _holders(status: Status) -> Iterator[tuple[str, str, str]]:
    """Yield server, service and state of each connection; PgBouncer's carry the name of one of its clients."""
    services = {report.name: report.service for report in status.processes}
    services |= {either_holder(name): f"{service} or {PGBOUNCER}" for name, service in services.items()}
    services |= {overview.PGBOUNCER: PGBOUNCER}
    for server in status.servers:
        for connection in server.facts.connections:
            yield server.name, services.get(status.owner_of(connection) or "", ""), connection.state


def of_pgbouncer(pooler: PgBouncer) -> Iterator[Metric]:
    """Yield the current state of each pool of PgBouncer, and the totals of each database."""
    clients = GaugeMetricFamily(
        "poolhouse_pgbouncer_clients", "Clients of PgBouncer", labels=("database", "user", "state")
    )
    servers = GaugeMetricFamily(
        "poolhouse_pgbouncer_servers", "Connections from PgBouncer to the server", labels=("database", "user", "state")
    )
    waits = GaugeMetricFamily(
        "poolhouse_pgbouncer_longest_wait_seconds",
        "Longest time that a client has been waiting for a server connection",
        labels=("database", "user"),
    )
    for pool in pooler.pools:
        whose = (pool.database, pool.user)
        clients.add_metric((*whose, "active"), pool.clients_active)
        clients.add_metric((*whose, "waiting"), pool.clients_waiting)
        servers.add_metric((*whose, "active"), pool.servers_active)
        servers.add_metric((*whose, "idle"), pool.servers_idle)
        servers.add_metric((*whose, "login"), pool.servers_in_login)
        waits.add_metric(whose, pool.longest_wait_s)
    yield from (clients, servers, waits)
    for name, read in PGBOUNCER_TOTALS.items():
        samples = (((stats.database,), read(stats)) for stats in pooler.stats)
        yield counter(f"poolhouse_pgbouncer_{name}", "Since PgBouncer started", ("database",), samples)
