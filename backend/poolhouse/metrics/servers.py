"""What the database server and PgBouncer tell, as families."""

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from poolhouse.metrics.look import PGBOUNCER, Look, Room
from poolhouse.metrics.samples import counter, gauge
from poolhouse.servers.pgbouncer import PgBouncer, PgBouncerStats

PGBOUNCER_TOTALS: dict[str, Callable[[PgBouncerStats], float]] = {
    "transactions": lambda stats: stats.transactions,
    "queries": lambda stats: stats.queries,
    "received_bytes": lambda stats: stats.received_bytes,
    "sent_bytes": lambda stats: stats.sent_bytes,
    "wait_seconds": lambda stats: stats.wait_s,
}


def of_server(room: Room, look: Look) -> Iterator[Metric]:
    """Give how many connections the server takes, and who has them."""
    capacity, held = room.capacity, Counter(_holders(room, look))
    reserved = {"superuser": capacity.superuser_reserved, "pg_use_reserved_connections": capacity.reserved}
    yield GaugeMetricFamily("poolhouse_server_max_connections", "max_connections", capacity.max_connections)
    yield gauge(
        "poolhouse_server_reserved_connections",
        "Connections that ordinary roles cannot have",
        ("role",),
        (((role,), count) for role, count in reserved.items()),
    )
    yield GaugeMetricFamily("poolhouse_server_usable_connections", "Connections for ordinary roles", capacity.usable)
    yield GaugeMetricFamily(
        "poolhouse_server_used_connections", "Connections open, the monitor's own aside", len(room.connections)
    )
    yield gauge(
        "poolhouse_server_connections",
        "Connections open; the service is empty where no process that reports holds them",
        ("service", "state"),
        sorted(held.items()),
    )


def _holders(room: Room, look: Look) -> Iterator[tuple[str, str]]:
    """Give the service and the state of each connection; PgBouncer's have the name of a client of its."""
    services = {report.name: report.service for report in look.fleet.reports} if look.fleet else {}
    for connection in room.connections:
        is_poolers = look.pgbouncer is not None and look.pgbouncer.holds(connection)
        yield PGBOUNCER if is_poolers else services.get(connection.application, ""), connection.state


def of_pgbouncer(pooler: PgBouncer) -> Iterator[Metric]:
    """Give what each pool of PgBouncer's is like now, and what went through each database."""
    clients = GaugeMetricFamily("poolhouse_pgbouncer_clients", "Clients", labels=("database", "user", "state"))
    servers = GaugeMetricFamily(
        "poolhouse_pgbouncer_servers", "Connections to the server", labels=("database", "user", "state")
    )
    waits = GaugeMetricFamily(
        "poolhouse_pgbouncer_longest_wait_seconds",
        "How long the client has waited that waits longest",
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
