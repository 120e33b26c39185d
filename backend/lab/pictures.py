"""The pictures of a comparison of strategies."""

from collections.abc import Callable, Sequence

from lab import chart, panels
from lab.panels import Axis, Point
from lab.shares import shares
from lab.summary import FAULTLESS_SHARE, Place, Row
from lab.workloads import ERRORS, WORKLOADS

GOOD = "answered"
OURS = "queuepool"


def of_place(place: Place, table: Sequence[Row]) -> dict[str, str]:
    """Draw throughput and p99 against the number of clients; SVG by name."""
    here = [row for row in table if row.place == place]
    clients = sorted({row.clients for row in here})
    labels = [f"{count} clients" if count == clients[0] else str(count) for count in clients]
    workload = WORKLOADS[place.workload].label
    mark = f"red: more than {1 - FAULTLESS_SHARE:.1%} errors; grey: the other strategies"
    rates = _points(here, clients, lambda row: row.requests_per_s)
    p99s = _points(here, clients, lambda row: row.latency_ms("p99_ms"))
    greatest = max(point.value or 0 for points in rates.values() for point in points)
    return {
        "throughput": panels.lines(
            f"Requests per second: {workload}",
            f"good answers, by clients; {mark}",
            rates,
            labels,
            Axis(0, max(1.0, greatest) * 1.1),
        ),
        "p99": panels.lines(
            f"p99 in milliseconds: {workload}", f"of good answers, logarithmic; {mark}", p99s, labels, _decades(p99s)
        ),
    }


def _points(
    rows: Sequence[Row], clients: Sequence[int], value: Callable[[Row], float | None]
) -> dict[str, list[Point]]:
    found: dict[str, dict[int, Row]] = {}
    for row in rows:
        found.setdefault(row.strategy, {})[row.clients] = row
    return {
        strategy: [
            Point(value(by_clients[count]), by_clients[count].good_share < FAULTLESS_SHARE)
            if count in by_clients
            else Point(None)
            for count in clients
        ]
        for strategy, by_clients in sorted(found.items())
    }


def _decades(points: dict[str, list[Point]]) -> Axis:
    values = [point.value for line in points.values() for point in line if point.value]
    least, greatest = min(values, default=1.0), max(values, default=10.0)
    return Axis(least * 0.8, max(greatest * 1.3, least * 12), is_logarithmic=True)


def connections(place: Place, table: Sequence[Row], limit: int) -> str:
    """Draw the connections on the server over time, from few clients to many."""
    here = [row for row in table if row.place == place]
    clients = sorted({row.clients for row in here})
    names = sorted({row.strategy for row in here})
    parts = {
        name: [
            [(at_s, open_) for at_s, open_, *_ in row.turns[0].seen["samples"]]
            for count in clients
            for row in here
            if row.strategy == name and row.clients == count
        ]
        for name in names
    }
    return panels.areas(
        f"Connections on the server: {WORKLOADS[place.workload].label}",
        f"over one turn with each number of clients; dashed: the {limit} that the server has for the application",
        parts,
        [str(count) for count in clients],
        limit,
    )


def exhaustion(place: Place, table: Sequence[Row]) -> str:
    """Draw what became of the requests under the most clients."""
    here = [row for row in table if row.place == place]
    most = max(row.clients for row in here)
    rows = {
        row.strategy: ({GOOD: row.good_share, **_error_shares(row)}, _told(row))
        for row in sorted(here, key=lambda row: row.strategy)
        if row.clients == most
    }
    return shares(
        f"What exhaustion looks like: {most} clients, {WORKLOADS[place.workload].label}",
        "what became of the requests; p99 is of those that were answered",
        rows,
        [GOOD, *ERRORS.values(), "no answer"],
    )


def _error_shares(row: Row) -> dict[str, float]:
    return {kind: count / row.answers for kind, count in row.errors.items()}


def _told(row: Row) -> str:
    p99_ms = row.latency_ms("p99_ms")
    latency = "" if p99_ms is None else f"p99 {p99_ms:,.0f} ms, "
    return f"{row.requests_per_s:,.0f} good/s, {latency}{row.most_connections} connections on the server"


def headline(place: Place, table: Sequence[Row], clients: int) -> str:
    """Draw the requests per second of each strategy, the fastest first."""
    here = sorted(
        (row for row in table if row.place == place and row.clients == clients), key=lambda row: -row.requests_per_s
    )
    rows = [(row.strategy, row.rates, row.strategy == OURS) for row in here]
    subtitle = (
        f"{WORKLOADS[place.workload].label}, {place.model}, {clients} clients; medians of {len(here[0].turns)} rounds, "
        "line: least to greatest"
    )
    return chart.bars("Requests per second by strategy", subtitle, rows, "requests/s")
