"""The status as text for people."""

from collections import defaultdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from poolhouse.console import table
from poolhouse.pools import PoolState
from poolhouse.report import ProcessReport
from poolhouse.status import Status

COLOURS = {"ok": "bold green", "warning": "bold yellow", "critical": "bold red"}
UNBOUNDED = "–"
UNKNOWN = "?"
NO_NAME = "(no name)"


def print_status(status: Status, console: Console, *, detailed: bool) -> None:
    """Print the verdict and a table by service; in detail, each process and each group of connections instead."""
    _print_verdict(status, console)
    if not status.processes:
        console.print("\nNo process reports its pools.")
    elif detailed:
        _print_table(console, "Processes", _process_table(status))
    else:
        _print_table(console, "Services", _service_table(status))
    if detailed and status.server:
        _print_table(console, "Connections on the server", _connection_table(status))
        if status.unexplained:
            _print_table(console, "Unexplained: no reporting process owns these", _unexplained_table(status))


def _print_verdict(status: Status, console: Console) -> None:
    level, reasons = status.verdict
    console.print(Text(level.upper(), style=COLOURS[level]))
    for reason in reasons:
        console.print(f"  {reason}")
    if server := status.server:
        console.print(
            f"PostgreSQL {server.version}: {server.used} connections open, room for {server.room_left} more "
            f"(max_connections {server.max_connections}, reserved {server.reserved})"
        )


def _print_table(console: Console, title: str, content: Table) -> None:
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
    if status.unexplained:
        made.add_row("(unexplained)", *[""] * 5, str(len(status.unexplained)))
    return made


def _total_max(pools: list[PoolState]) -> str:
    bounds = [pool.max for pool in pools if pool.max is not None]
    return str(sum(bounds)) if len(bounds) == len(pools) else UNBOUNDED


def _on_server(status: Status, processes: list[ProcessReport]) -> str:
    return str(sum(len(status.connections_of(process)) for process in processes)) if status.server else UNKNOWN


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


def _connection_table(status: Status) -> Table:
    made = table("application", "state", "connections#")
    for (application, state), count in sorted(status.by_application_and_state.items()):
        made.add_row(application or NO_NAME, state, str(count))
    return made


def _unexplained_table(status: Status) -> Table:
    made = table("pid#", "application", "user", "client", "state", "age#")
    for connection in status.unexplained:
        made.add_row(
            str(connection.pid),
            connection.application or NO_NAME,
            connection.user,
            connection.client,
            connection.state,
            f"{connection.age_s:.0f} s",
        )
    return made
