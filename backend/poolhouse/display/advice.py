"""The advice on pool sizes as text for people."""

from collections.abc import Iterator
from math import inf

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from poolhouse.display.console import section
from poolhouse.display.table import Table
from poolhouse.formatting import NOT_GIVEN, counted, duration, percent
from poolhouse.sizing.fleet import Bouncers, FleetAdvice, connections_by_cores
from poolhouse.sizing.plan import Capacity, Row
from poolhouse.sizing.process import ProcessAdvice, Setting
from poolhouse.sizing.report import PGBOUNCER_VARIABLES, VARIABLES, Advice

STYLES = {"direct": "green", "tight": "yellow", "due": "yellow", "too small": "bold red"}


def progress_on(console: Console) -> Progress:
    """Return a progress bar for a measurement; it is drawn on terminals only, and removed at the end."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def draw_advice(advice: Advice, capacity: Capacity) -> RenderableType:
    """Return the load, the settings, the fleet, PgBouncer's sizes and the plan."""
    process, fleet = advice.process, advice.fleet
    return Group(
        *section("Load", _load_table(advice)),
        *section("Settings of each process", _setting_table(process.settings, VARIABLES)),
        *section("Expected wait times", _wait_table(process)),
        *section("The fleet", _fleet_table(advice)),
        Text(f"{fleet.reason}.", style=STYLES[fleet.verdict]),
        *section(_pgbouncer_title(fleet), _setting_table(fleet.bouncer.settings, PGBOUNCER_VARIABLES)),
        *_plan(advice, capacity),
        *(Text(f"\nWarning: {warning}.", style="yellow") for warning in advice.warnings),
    )


def _facts(*facts: tuple[str, str]) -> Table:
    made = Table("", "")
    made.show_header = False
    for name, value in facts:
        made.add_row(Text(name, style="dim"), Text(value))
    return made


def _load_table(advice: Advice) -> Table:
    demand, measured = advice.process.demand, advice.measured
    load, target = demand.load, demand.target
    made = _facts(
        ("Checkouts", f"{load.rate_per_s:,.4g}/s in each process"),
        ("Hold time", f"mean {duration(load.holds.mean_s)}, squared coefficient of variation {load.holds.cv2:.2f}"),
        ("In use", f"mean {load.in_use:.3g}"),
        ("Target", f"{target.share * 100:g} % of the callers wait {duration(target.wait_s)} or less"),
    )
    if measured is None:
        return made
    made.add_row(
        Text("Measured", style="dim"),
        f"over {measured.elapsed_s:.1f} s: {measured.checkouts:,} checkouts in {measured.process}, the busiest of "
        f"{counted(measured.processes, 'process', 'processes')} of {measured.service}; hold times of the whole service",
    )
    now = advice.pool_now
    predicted = f"; the model predicts {_wait(now.wait_s(0.95))}" if now and now.is_stable else ""
    made.add_row(Text("Wait time", style="dim"), f"p95 {duration(measured.waits.quantile_s(0.95))}{predicted}")
    return made


def _setting_table(settings: tuple[Setting, ...], variables: dict[str, str]) -> Table:
    made = Table("setting", "value#", "variable", "why", shed=("variable",))
    for one in settings:
        made.add_row(one.name, str(one.value), Text(variables.get(one.name, NOT_GIVEN), style="dim"), one.reason)
    return made


def _wait_table(process: ProcessAdvice) -> Table:
    made = Table("utilisation#", "wait p50#", "p95#", "p99#")
    waits = [process.wait_s(share) for share in (0.50, 0.95, 0.99)]
    made.add_row(percent(process.pool.utilisation), *(_wait(wait_s) for wait_s in waits))
    return made


def _wait(wait_s: float) -> str:
    if wait_s == 0:
        return "none"
    return "unbounded" if wait_s == inf else duration(wait_s)


def _fleet_table(advice: Advice) -> Table:
    deployment, process = advice.fleet.deployment, advice.process
    fleet, room = deployment.fleet, deployment.room
    made = Table("service", "processes", "connections at start#", "max#")
    made.add_row(
        "web",
        f"hosts {fleet.hosts:,} × processes {fleet.processes:,}",
        f"{fleet.web_processes * process.least:,}",
        f"{fleet.web_processes * process.most:,}",
    )
    others = f"{fleet.other_connections:,}"
    workers = f"{counted(fleet.workers, 'worker')} × ({fleet.worker_concurrency} + 1), beat, " if fleet.workers else ""
    made.add_row("others", f"{workers}monitor", others, others)
    made.add_row("all", "", f"{advice.fleet.kept:,}", f"{advice.fleet.most:,}")
    made.add_row(
        "usable", f"max_connections {room.max_connections:,} − {room.reserved} reserved", "", f"{room.usable:,}"
    )
    if advice.cores is not None:
        made.add_row(
            "rule of thumb", f"{advice.cores} cores × 2 + 1, active", "", f"{connections_by_cores(advice.cores)}"
        )
    return made


def _pgbouncer_title(fleet: FleetAdvice) -> str:
    is_due = fleet.verdict in ("due", "too small")
    return "PgBouncer, in transaction mode" if is_due else "PgBouncer, in transaction mode (not needed now)"


def _plan(advice: Advice, capacity: Capacity) -> Iterator[RenderableType]:
    made = Table(
        "web processes#",
        "hosts#",
        "direct#",
        "tiers",
        "per host",
        "central",
        "on the server#",
        "usable#",
        shed=("usable", "hosts", "per host"),
    )
    for row in advice.rows:
        made.add_row(
            f"{row.web_processes:,}",
            f"{row.hosts:,}",
            f"{row.direct:,}",
            row.way,
            _tier(row.sidecar),
            _tier(row.central),
            _on_server(row),
            f"{row.deployment.room.usable:,}",
        )
    yield from section("Plan, with the same load for each process", made)
    if made.row_count:
        yield Text(
            "A tier shows PgBouncer processes × default_pool_size, and the max_client_conn of each. "
            f"One process is assumed to serve {capacity.clients:,} clients and {capacity.transactions_per_s:,.0f} "
            "transactions/s; measure it on your hosts. Several processes share a port with so_reuseport.",
            style="dim",
        )


def _tier(tier: Bouncers | None) -> str:
    if tier is None:
        return NOT_GIVEN
    return f"{tier.instances:,} × {tier.default_pool_size}, {tier.max_client_conn:,} clients"


def _on_server(row: Row) -> Text:
    text = f"{row.server_connections:,}"
    return Text(text) if row.fits else Text(f"{text}, needs {row.needed:,}", style="bold red")
