"""The status as text for people."""

from collections import defaultdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from poolhouse.console import table
from poolhouse.pgbouncer import PgBouncer
from poolhouse.pools import PoolState
from poolhouse.report import ProcessReport
from poolhouse.server import ServerConnection, ServerFacts, TimescaleDB
from poolhouse.status import PGBOUNCER, Status

COLOURS = {"ok": "bold green", "warning": "bold yellow", "critical": "bold red"}
UNBOUNDED = "–"
UNKNOWN = "?"
NO_NAME = "(no name)"
NOT_GIVEN = "–"
UNEXPLAINED = "unexplained"
IDLE_IN_TRANSACTION_S = 3


def print_status(status: Status, console: Console, *, detailed: bool) -> None:
    """Print the verdict and a table by service; in detail, each process, connection, block and pool instead."""
    _print_verdict(status, console)
    if not status.processes:
        console.print("\nNo process reports its pools.")
    elif detailed:
        _print_table(console, "Processes", _process_table(status))
    else:
        _print_table(console, "Services", _service_table(status))
    if detailed and status.pgbouncer:
        _print_pgbouncer(status.pgbouncer, console)
    if detailed and status.server:
        _print_server(status, status.server, console)
    if detailed and status.timescaledb:
        _print_table(console, "Hypertables", _hypertable_table(status.timescaledb))


def _print_verdict(status: Status, console: Console) -> None:
    level, reasons = status.verdict
    console.print(Text(level.upper(), style=COLOURS[level]))
    for reason in reasons:
        console.print(f"  {reason}")
    if server := status.server:
        room = server.capacity
        console.print(
            f"PostgreSQL {room.version}: {server.used} connections open, room for {server.room_left} more "
            f"(max_connections {room.max_connections}, reserved {room.superuser_reserved} + {room.reserved})"
        )
    if pgbouncer := status.pgbouncer:
        waiting = sum(pool.clients_waiting for pool in pgbouncer.pools)
        console.print(
            f"PgBouncer {pgbouncer.version}: {len(pgbouncer.clients)} clients, {waiting} of them waiting, "
            f"on {len(pgbouncer.servers)} server connections"
        )
    if extension := status.timescaledb:
        console.print(f"TimescaleDB {extension.version}, {extension.edition} edition")


def _print_server(status: Status, server: ServerFacts, console: Console) -> None:
    idle = [one for one in server.idle_in_transaction if (one.state_age_s or 0) >= IDLE_IN_TRANSACTION_S]
    longest = [one] if (one := server.longest_transaction) else []
    by_owner = sorted(server.connections, key=lambda one: (_owner(status, one), one.pid))
    _print_table(console, "Blocked: these wait for a lock", _block_table(status, server))
    _print_table(
        console, f"Idle in transaction for {IDLE_IN_TRANSACTION_S} s or longer", _connection_table(status, idle)
    )
    _print_table(console, "Longest transaction", _connection_table(status, longest))
    _print_table(console, "Connections on the server", _group_table(server))
    _print_table(console, "Each connection, and who holds it", _connection_table(status, by_owner))


def _print_pgbouncer(pgbouncer: PgBouncer, console: Console) -> None:
    _print_table(console, "PgBouncer's pools", _pgbouncer_pool_table(pgbouncer))
    _print_table(console, "PgBouncer's traffic", _pgbouncer_traffic_table(pgbouncer))
    _print_table(console, "PgBouncer's clients", _pgbouncer_client_table(pgbouncer))


def _print_table(console: Console, title: str, content: Table) -> None:
    if not content.row_count:
        return
    console.print()
    console.print(Text(title, style="bold"))
    console.print(content)


def _service_table(status: Status) -> Table:
    made = table("service", "processes#", "in use#", "idle#", "overflow#", "max#", "server#")
    services: dict[str, list[ProcessReport]] = defaultdict(list)
    for process in status.processes:
        services[process.service].append(process)
    for service, processes in sorted(services.items()):
        pools = [pool for process in processes for pool in process.pools]
        made.add_row(
            service,
            str(len(processes)),
            str(sum(pool.in_use for pool in pools)),
            str(sum(pool.idle for pool in pools)),
            str(sum(pool.overflow for pool in pools)),
            _total_max(pools),
            _on_server(status, processes),
        )
    for name, owner in ((f"({PGBOUNCER})", PGBOUNCER), (f"({UNEXPLAINED})", None)):
        if held := status.owned_by(owner):
            made.add_row(name, *[""] * 5, str(len(held)))
    return made


def _total_max(pools: list[PoolState]) -> str:
    bounds = [pool.max for pool in pools if pool.max is not None]
    return str(sum(bounds)) if len(bounds) == len(pools) else UNBOUNDED


def _on_server(status: Status, processes: list[ProcessReport]) -> str:
    return str(sum(len(status.owned_by(process.name)) for process in processes)) if status.server else UNKNOWN


def _process_table(status: Status) -> Table:
    several_aliases = len({pool.alias for process in status.processes for pool in process.pools}) > 1
    made = table("process", "pool", "in use#", "idle#", "overflow#", "size#", "server#", "seen#")
    for process in status.processes:
        for pool in process.pools:
            made.add_row(
                process.name,
                f"{pool.kind} ({pool.alias})" if several_aliases else pool.kind,
                str(pool.in_use),
                str(pool.idle),
                str(pool.overflow),
                _size(pool),
                _on_server(status, [process]),
                f"{max(0.0, status.taken_at - process.reported_at):.1f} s",
            )
    return made


def _size(pool: PoolState) -> str:
    """Write a pool's size and what it may open above it: 5+5."""
    if pool.size is None:
        return UNBOUNDED
    return f"{pool.size}+{'any' if pool.max is None else pool.max - pool.size}"


def _group_table(server: ServerFacts) -> Table:
    made = table("application", "user", "client", "state", "connections#")
    for group, count in sorted(server.groups.items()):
        made.add_row(group.application or NO_NAME, group.user, group.client, group.state, str(count))
    return made


def _connection_table(status: Status, connections: list[ServerConnection]) -> Table:
    made = table("pid#", "owner", "user", "client", "state", "for#", "age#", "transaction#", "waits for")
    for one in connections:
        made.add_row(
            str(one.pid),
            _owner(status, one),
            one.user,
            one.client,
            one.state,
            _seconds(one.state_age_s),
            _seconds(one.age_s),
            _seconds(one.transaction_age_s),
            one.wait,
        )
    return made


def _owner(status: Status, connection: ServerConnection) -> str:
    """Write who holds a connection, and where that is not its application, what it calls itself."""
    owner = status.owner_of(connection)
    if owner == connection.application:
        return owner
    return f"{owner or UNEXPLAINED} {connection.application or NO_NAME}"


def _block_table(status: Status, server: ServerFacts) -> Table:
    owners = {one.pid: _owner(status, one) for one in server.connections}
    states = {one.pid: one.state for one in server.connections}
    made = table("pid#", "owner", "waits for", "since#", "blocked by pid#", "owner", "which is")
    for block in server.blocks:
        made.add_row(
            str(block.pid),
            owners.get(block.pid, NO_NAME),
            block.lock,
            _seconds(block.wait_s),
            str(block.blocker_pid),
            owners.get(block.blocker_pid, block.blocker),
            states.get(block.blocker_pid, UNKNOWN),
        )
    return made


def _pgbouncer_pool_table(pgbouncer: PgBouncer) -> Table:
    made = table(
        "database", "user", "mode", "clients#", "waiting#", "longest wait#", "servers active#", "idle#", "login#"
    )
    for pool in pgbouncer.pools:
        made.add_row(
            pool.database,
            pool.user,
            pool.mode,
            str(pool.clients_active),
            str(pool.clients_waiting),
            _seconds(pool.longest_wait_s),
            str(pool.servers_active),
            str(pool.servers_idle),
            str(pool.servers_in_login),
        )
    return made


def _pgbouncer_traffic_table(pgbouncer: PgBouncer) -> Table:
    columns = ("transactions/s#", "queries/s#", "mean transaction#", "mean query#", "mean wait#", "transactions#")
    made = table("database", *columns)
    for one in pgbouncer.stats:
        made.add_row(
            one.database,
            f"{one.transactions_per_s:,}",
            f"{one.queries_per_s:,}",
            f"{one.mean_transaction_ms:.1f} ms",
            f"{one.mean_query_ms:.1f} ms",
            f"{one.mean_wait_ms:.1f} ms",
            f"{one.transactions:,}",
        )
    return made


def _pgbouncer_client_table(pgbouncer: PgBouncer) -> Table:
    waits: dict[tuple[str, str], list[float]] = defaultdict(list)
    for client in pgbouncer.clients:
        waits[client.application, client.state].append(client.wait_s)
    made = table("application", "state", "clients#", "longest wait#")
    for (application, state), waited in sorted(waits.items()):
        made.add_row(application or NO_NAME, state, str(len(waited)), _seconds(max(waited)))
    return made


def _hypertable_table(extension: TimescaleDB) -> Table:
    made = table("hypertable", "chunks#", "size#")
    for one in extension.hypertables:
        made.add_row(one.name, f"{one.chunk_count:,}", f"{one.size_bytes / 2**20:,.1f} MiB")
    return made


def _seconds(value: float | None) -> str:
    return NOT_GIVEN if value is None else f"{value:,.1f} s"
