"""Tables of the pools, by service and by process."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from poolhouse.display.console import section
from poolhouse.display.table import Table
from poolhouse.formatting import NOT_GIVEN, duration, number
from poolhouse.measures.histogram import Histogram
from poolhouse.overview.findings import PERIOD
from poolhouse.overview.fleet import Group
from poolhouse.overview.status import PGBOUNCER, Status
from poolhouse.process.activity import Activity
from poolhouse.process.pools import PoolState
from poolhouse.reports.report import ProcessReport

UNKNOWN = "?"
UNEXPLAINED = "unexplained"
UNKNOWN_HOLDER = "unknown holder"
SHARES = (0.50, 0.95, 0.99)
# The width from which on the table of services shows durations as well.
WIDE_COLUMNS = 100
STATEMENT_MAX_CHARS = 300

# The columns that a narrow terminal leaves out, in this order.
SERVICE_SHED = ("overflow", "server", "idle", "hold p95", "processes", "wait p95")
PROCESS_SHED = ("overflow", "seen", "server", "idle", "pool", "size")
WAITS = ("checkouts#", "wait p50#", "wait p95#", "wait p99#", "hold p50#", "hold p95#", "hold p99#")
WAITS_SHED = ("checkouts", "wait p50", "hold p50", "hold p99", "wait p99", "hold p95")


def service_table(status: Status, *, width: int) -> Table:
    """Return one row per service and one for the fleet; durations are those of the last 5 minutes."""
    names = ["service", "processes#", "in use#", "idle#", "overflow#", "waiting#", "max#", "server#"]
    is_wide = width >= WIDE_COLUMNS
    made = Table(*names, *(("wait p95#", "hold p95#") if is_wide else ()), shed=SERVICE_SHED)
    for group in groups(status):
        recent = group.recent()
        durations = [_wait(recent, 0.95), duration(_quantile(recent.hold, 0.95))]
        made.add_row(*_service_row(status, group), *(durations if is_wide else ()))
    for name, owner in ((f"({PGBOUNCER})", PGBOUNCER), (f"({unowned(status)})", None)):
        if held := status.owned_by(owner):
            made.add_row(name, *[""] * 6, str(len(held)))
    return made


def unowned(status: Status) -> str:
    """Return the label of connections without a known holder."""
    return UNEXPLAINED if status.knows_processes else UNKNOWN_HOLDER


def groups(status: Status) -> list[Group]:
    """Return the services, and the fleet if it has more than one of them."""
    return [*status.services, status.fleet] if len(status.services) > 1 else status.services


def _service_row(status: Status, group: Group) -> list[str]:
    return [
        group.name,
        str(len(group.processes)),
        str(group.in_use),
        str(group.idle),
        str(group.overflow),
        number(group.waiting),
        number(group.max),
        _on_server(status, group.processes),
    ]


def _on_server(status: Status, processes: list[ProcessReport], alias: str | None = None) -> str:
    """Count the server connections of these processes, with a ? where PgBouncer may hold some of them."""
    if not (status.server if alias is None else status.server_of(alias)):
        return UNKNOWN
    names = {process.name for process in processes}
    count = sum(len(status.owned_by(name, alias)) for name in names)
    return f"{count}{UNKNOWN}" if count and status.is_pgbouncer_away else str(count)


def process_sections(status: Status) -> Iterator[RenderableType]:
    """Yield the tables by process, and the leak suspects."""
    yield from section(f"Wait and hold times by service, {PERIOD}", _service_waits(status))
    yield from section("Processes", _process_table(status))
    yield from section(f"Wait and hold times by process, {PERIOD}", _process_waits(status))
    yield from section("Since each process began", _count_table(status))
    yield from _suspects(status)


def _service_waits(status: Status) -> Table:
    made = Table("service", *WAITS, shed=WAITS_SHED)
    for group in groups(status):
        _add_waits(made, group.name, group.recent())
    return made


def _process_table(status: Status) -> Table:
    made = Table(
        "process", "pool", "size#", "in use#", "idle#", "overflow#", "waiting#", "server#", "seen#", shed=PROCESS_SHED
    )
    for process, pool in _pools(status):
        made.add_row(
            process.name,
            _kind(status, pool),
            _size(pool),
            str(pool.in_use),
            str(pool.idle),
            str(pool.overflow),
            number(pool.waiting),
            _on_server(status, [process], pool.alias),
            f"{max(0.0, status.taken_at - process.reported_at):.1f} s",
        )
    return made


def _process_waits(status: Status) -> Table:
    made = Table("process", *WAITS, shed=WAITS_SHED)
    for process, pool in _pools(status):
        recent = Activity.merged(pool.alias, (one for one in process.recent if one.alias == pool.alias))
        _add_waits(made, _name(status, process, pool), recent)
    return made


def _add_waits(made: Table, name: str, recent: Activity) -> None:
    if recent.wait and recent.wait.count:
        made.add_row(name, number(recent.wait.count - recent.timeouts), *_waits(recent), *_quantiles(recent.hold))


def _count_table(status: Status) -> Table:
    names = ("lent", "timeouts", "connects", "connect_errors", "invalidated", "recycled", "resets")
    titles = [f"{name}#" for name in ("checkouts", "timeouts", "opened", "failed", "invalidated", "recycled", "resets")]
    made = Table("process", *titles, shed=("resets", "recycled", "invalidated", "opened"))
    for process, pool in _pools(status):
        if pool.counts:
            made.add_row(_name(status, process, pool), *(number(pool.counts.get(name)) for name in names))
    return made


def _suspects(status: Status) -> Iterator[RenderableType]:
    suspects = [(process, one) for process, pool in _pools(status) for one in pool.suspects]
    if suspects:
        yield Text("\nLeak suspects", style="bold")
    for process, one in suspects:
        lines = Table("", "")
        lines.show_header = False
        lines.add_row("holder", one.holder)
        lines.add_row("checked out at", one.taken_at or UNKNOWN)
        lines.add_row("last statement", Text(_cut(one.last_statement or "none")))
        yield Text(f"{process.name}, held for {duration(one.held_s)}")
        yield Padding(lines, (0, 0, 0, 2))


def _cut(statement: str) -> str:
    return statement if len(statement) <= STATEMENT_MAX_CHARS else f"{statement[:STATEMENT_MAX_CHARS]} …"


def _pools(status: Status) -> Iterator[tuple[ProcessReport, PoolState]]:
    return ((process, pool) for process in status.processes for pool in process.pools)


def _has_several_aliases(status: Status) -> bool:
    return len({pool.alias for _, pool in _pools(status)}) > 1


def _kind(status: Status, pool: PoolState) -> str:
    return f"{pool.kind} ({pool.alias})" if _has_several_aliases(status) else pool.kind


def _name(status: Status, process: ProcessReport, pool: PoolState) -> str:
    return f"{process.name} ({pool.alias})" if _has_several_aliases(status) else process.name


def _size(pool: PoolState) -> str:
    """Write a pool's size and overflow: 5+5."""
    if pool.size is None:
        return NOT_GIVEN
    return f"{pool.size}+{'any' if pool.max is None else pool.max - pool.size}"


def _waits(recent: Activity) -> list[str]:
    return [_wait(recent, share) for share in SHARES]


def _wait(recent: Activity, share: float) -> str:
    """Write a quantile of the wait; with ≥ where it is the wait of a caller that timed out."""
    text = duration(_quantile(recent.wait, share))
    is_timeout = recent.wait and not recent.wait.without_bucket and recent.timeouts > (1 - share) * recent.wait.count
    return f"≥ {text}" if is_timeout else text


def _quantiles(histogram: Histogram | None) -> list[str]:
    return [duration(_quantile(histogram, share)) for share in SHARES]


def _quantile(histogram: Histogram | None, share: float) -> float | None:
    return histogram.quantile_s(share) if histogram else None
