"""Text output of the status."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from poolhouse.display.console import section
from poolhouse.display.pool_tables import UNKNOWN, WIDE_COLUMNS, process_sections, service_table, unowned
from poolhouse.display.table import Table
from poolhouse.display.trend import Trend
from poolhouse.formatting import duration
from poolhouse.overview.facts import either_holder
from poolhouse.overview.findings import PERIOD
from poolhouse.overview.status import ServerAnswers, Status
from poolhouse.servers.pgbouncer import PgBouncer
from poolhouse.servers.server import ServerConnection, ServerFacts, TimescaleDB

COLOURS = {"ok": "bold green", "warning": "bold yellow", "critical": "bold red"}
NO_NAME = "(no name)"
IDLE_IN_TRANSACTION_S = 3


def print_status(status: Status, console: Console, *, detailed: bool) -> None:
    """Print the verdict and a table of services and, if detailed, each process, pool and connection."""
    for part in draw_status(status, detailed=detailed, width=console.width):
        console.print(part)


def draw_status(status: Status, *, detailed: bool, width: int) -> Iterator[RenderableType]:
    """Yield the parts that `print_status` prints.

    Args:
        status: what is drawn.
        detailed: each process, connection, block and pool as well.
        width: of the console, in columns.
    """
    yield from draw_verdict(status)
    yield from _draw_services(status, width)
    if detailed:
        yield from _draw_details(status)


def draw_watched(status: Status, trend: Trend, *, detailed: bool, width: int) -> Iterator[RenderableType]:
    """Yield the same parts, with the trend of each service."""
    yield from draw_verdict(status)
    yield from section("Trend", trend.table(width))
    yield from _draw_services(status, width)
    if detailed:
        yield from _draw_details(status)


def _draw_services(status: Status, width: int) -> Iterator[RenderableType]:
    if not status.knows_processes:
        yield Text("\nThe reports of the processes cannot be read, so the holders of connections are unknown.")
    elif not status.processes:
        yield Text("\nNo process is reporting.")
    title = f"Services, p95 {PERIOD}" if width >= WIDE_COLUMNS else "Services"
    yield from section(title, service_table(status, width=width))


def draw_verdict(status: Status) -> Iterator[RenderableType]:
    """Yield the verdict with its reasons, and a line for each server."""
    level, reasons = status.verdict
    yield draw_level(level, reasons)
    yield from _draw_servers(status)


def draw_level(level: str, reasons: Iterable[str], *, word: str = "") -> RenderableType:
    """Return a verdict in its colour, with its reasons below."""
    indented = (Padding(Text(reason), (0, 0, 0, 2), expand=False) for reason in reasons)
    return Group(Text(word or level.upper(), style=COLOURS[level]), *indented)


def _draw_servers(status: Status) -> Iterator[Text]:
    for server in status.servers:
        facts, room = server.facts, server.facts.capacity
        limits = "".join(f", {limit.kind} {limit.name} {limit.connections}" for limit in facts.limits)
        yield Text(
            f"PostgreSQL {room.version}{_which(status, server)}: {facts.used} connections open, "
            f"room for {facts.room_left} more "
            f"(max_connections {room.max_connections}, reserved {room.superuser_reserved} + {room.reserved}{limits})"
        )
    if pgbouncer := status.pgbouncer:
        waiting = sum(pool.clients_waiting for pool in pgbouncer.pools)
        yield Text(
            f"PgBouncer {pgbouncer.version}: {len(pgbouncer.clients)} clients, {waiting} of them waiting, "
            f"on {len(pgbouncer.servers)} server connections"
        )
    for server in status.servers:
        if extension := server.timescaledb:
            yield Text(f"TimescaleDB {extension.version}, {extension.edition} edition{_which(status, server)}")


def _which(status: Status, server: ServerAnswers) -> str:
    """Return a server's aliases if there are several servers."""
    return f" ({', '.join(server.aliases)})" if len(status.servers) > 1 else ""


def _draw_details(status: Status) -> Iterator[RenderableType]:
    yield from process_sections(status)
    if status.pgbouncer:
        yield from _draw_pgbouncer(status.pgbouncer)
    for server in status.servers:
        yield from _draw_server(status, server.facts, _which(status, server))
        if server.timescaledb:
            yield from section(f"Hypertables{_which(status, server)}", _hypertable_table(server.timescaledb))


def _draw_server(status: Status, server: ServerFacts, which: str) -> Iterator[RenderableType]:
    idle = [one for one in server.idle_in_transaction if (one.state_age_s or 0) >= IDLE_IN_TRANSACTION_S]
    longest = [one] if (one := server.longest_transaction) else []
    by_owner = sorted(server.connections, key=lambda one: (_owner(status, one), one.pid))
    yield from section(f"Blocked{which}: sessions that wait for a lock", _block_table(status, server))
    for_long = f"Idle in transaction{which} for {IDLE_IN_TRANSACTION_S} s or longer"
    yield from section(for_long, _connection_table(status, idle))
    yield from section(f"Longest transaction{which}", _connection_table(status, longest))
    yield from section(f"Connections{which} by application and state", _group_table(server))
    yield from section(f"Connections{which}, each with its holder", _connection_table(status, by_owner))


def _draw_pgbouncer(pgbouncer: PgBouncer) -> Iterator[RenderableType]:
    yield from section("PgBouncer's pools", _pgbouncer_pool_table(pgbouncer))
    yield from section("PgBouncer's traffic", _pgbouncer_traffic_table(pgbouncer))
    yield from section("PgBouncer's clients", _pgbouncer_client_table(pgbouncer))


def _group_table(server: ServerFacts) -> Table:
    made = Table("application", "user", "client", "state", "connections#", shed=("user", "client", "state"))
    for group, count in sorted(server.groups.items()):
        made.add_row(group.application or NO_NAME, group.user, group.client, group.state, str(count))
    return made


def _connection_table(status: Status, connections: list[ServerConnection]) -> Table:
    made = Table(
        "pid#",
        "owner",
        "user",
        "client",
        "state",
        "for#",
        "age#",
        "transaction#",
        "waits for",
        shed=("user", "client", "age", "waits for", "transaction"),
    )
    for one in connections:
        made.add_row(
            str(one.pid),
            _owner(status, one),
            one.user,
            one.client,
            one.state,
            duration(one.state_age_s),
            duration(one.age_s),
            duration(one.transaction_age_s),
            one.wait,
        )
    return made


def _owner(status: Status, connection: ServerConnection) -> str:
    """Write the holder of a connection, and its application_name if that differs."""
    owner = status.owner_of(connection)
    if owner is not None and owner in (connection.application, either_holder(connection.application)):
        return owner
    return f"{owner or unowned(status)} {connection.application or NO_NAME}"


def _block_table(status: Status, server: ServerFacts) -> Table:
    owners = {one.pid: _owner(status, one) for one in server.connections}
    states = {one.pid: one.state for one in server.connections}
    made = Table(
        "pid#", "owner", "waits for", "wait#", "blocked by pid#", "owner", "its state", shed=("its state", "wait")
    )
    for block in server.blocks:
        made.add_row(
            str(block.pid),
            owners.get(block.pid, NO_NAME),
            block.lock,
            duration(block.wait_s),
            str(block.blocker_pid),
            owners.get(block.blocker_pid, block.blocker),
            states.get(block.blocker_pid, UNKNOWN),
        )
    return made


def _pgbouncer_pool_table(pgbouncer: PgBouncer) -> Table:
    made = Table(
        "database",
        "user",
        "mode",
        "clients#",
        "waiting#",
        "longest wait#",
        "servers active#",
        "idle#",
        "login#",
        shed=("mode", "login", "user", "idle"),
    )
    for pool in pgbouncer.pools:
        made.add_row(
            pool.database,
            pool.user,
            pool.mode,
            str(pool.clients_active),
            str(pool.clients_waiting),
            duration(pool.longest_wait_s),
            str(pool.servers_active),
            str(pool.servers_idle),
            str(pool.servers_in_login),
        )
    return made


def _pgbouncer_traffic_table(pgbouncer: PgBouncer) -> Table:
    columns = ("transactions/s#", "queries/s#", "mean transaction#", "mean query#", "mean wait#", "transactions#")
    made = Table("database", *columns)
    for one in pgbouncer.stats:
        made.add_row(
            one.database,
            f"{one.transactions_per_s:,}",
            f"{one.queries_per_s:,}",
            duration(one.mean_transaction_ms / 1000),
            duration(one.mean_query_ms / 1000),
            duration(one.mean_wait_ms / 1000),
            f"{one.transactions:,}",
        )
    return made


def _pgbouncer_client_table(pgbouncer: PgBouncer) -> Table:
    waits: dict[tuple[str, str], list[float]] = defaultdict(list)
    for client in pgbouncer.clients:
        waits[client.application, client.state].append(client.wait_s)
    made = Table("application", "state", "clients#", "longest wait#")
    for (application, state), waited in sorted(waits.items()):
        made.add_row(application or NO_NAME, state, str(len(waited)), duration(max(waited)))
    return made


def _hypertable_table(extension: TimescaleDB) -> Table:
    made = Table("hypertable", "chunks#", "size#")
    for one in extension.hypertables:
        made.add_row(one.name, f"{one.chunk_count:,}", f"{one.size_bytes / 2**20:,.1f} MiB")
    return made
