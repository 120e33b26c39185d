"""The charts of a comparison of strategies, each from the rows of one setting."""

from collections.abc import Callable, Sequence

from lab import chart, panels
from lab.matrix import Turn
from lab.panels import Axis, Point
from lab.shares import shares
from lab.summary import FAULTLESS_SHARE, Row
from lab.workloads import ERRORS, WORKLOADS

GOOD = "answered"
OURS = "queuepool"
MARK = f"more than {1 - FAULTLESS_SHARE:.1%} errors, or the load was not steady"


def of_setting(rows: Sequence[Row]) -> dict[str, str]:
    """Return charts of throughput, and of p99 if several numbers of clients were measured; SVG by name."""
    clients = sorted({row.clients for row in rows})
    return {"": rates(rows)} if len(clients) == 1 else _against_clients(rows, clients)


def rates(rows: Sequence[Row]) -> str:
    """Return a chart of requests/s by strategy for one number of clients, the fastest first."""
    ordered = sorted(rows, key=lambda row: -row.requests_per_s)
    bars = [(_label(row), row.rates, row.strategy == OURS) for row in ordered]
    one = rows[0]
    subtitle = f"{_setting(rows)}, {one.clients} clients; medians of {len(one.turns)} rounds, line: minimum to maximum"
    return chart.bars("Requests per second by strategy", subtitle, bars, "requests/s")


def _label(row: Row) -> str:
    return row.strategy if row.is_faultless else f"{row.strategy} (fails)"


def _against_clients(rows: Sequence[Row], clients: Sequence[int]) -> dict[str, str]:
    labels = [f"{count} clients" if count == clients[0] else str(count) for count in clients]
    reading = f"red cross: {MARK}; grey: the other strategies"
    throughputs = _points(rows, clients, lambda row: row.requests_per_s)
    p99s = _points(rows, clients, lambda row: row.latency_ms("p99_ms"))
    greatest = max(point.value or 0 for points in throughputs.values() for point in points)
    return {
        "throughput": panels.lines(
            f"Requests per second: {_setting(rows)}",
            f"answers without error, by clients; {reading}",
            throughputs,
            labels,
            Axis(0, max(1.0, greatest) * 1.1),
        ),
        "p99": panels.lines(
            f"p99 in milliseconds: {_setting(rows)}",
            f"of at least 100 answers without error, logarithmic; {reading}",
            p99s,
            labels,
            _decades(p99s),
        ),
    }


def _setting(rows: Sequence[Row]) -> str:
    setting = rows[0].setting
    return f"{WORKLOADS[setting.workload].label}, {setting.model}"


def _points(
    rows: Sequence[Row], clients: Sequence[int], value: Callable[[Row], float | None]
) -> dict[str, list[Point]]:
    found: dict[str, dict[int, Row]] = {}
    for row in rows:
        found.setdefault(row.strategy, {})[row.clients] = row
    return {
        strategy: [
            Point(value(by_clients[count]), not by_clients[count].is_faultless) if count in by_clients else Point(None)
            for count in clients
        ]
        for strategy, by_clients in sorted(found.items())
    }


def _decades(points: dict[str, list[Point]]) -> Axis:
    values = [point.value for line in points.values() for point in line if point.value]
    least, greatest = min(values, default=1.0), max(values, default=10.0)
    return Axis(least * 0.8, max(greatest * 1.3, least * 12), is_logarithmic=True)


def connections(rows: Sequence[Row], limit: int) -> str:
    """Return a chart of the connections on the server over time, from few clients to many.

    Args:
        rows: the rows of one setting.
        limit: how many connections the server allows.
    """
    clients = sorted({row.clients for row in rows})
    names = sorted({row.strategy for row in rows})
    parts = {
        name: [
            [(at_s, open_) for at_s, open_, *_ in _fullest(row).seen["samples"]]
            for count in clients
            for row in rows
            if row.strategy == name and row.clients == count
        ]
        for name in names
    }
    return panels.areas(
        f"Connections on the server: {_setting(rows)}",
        f"for each number of clients, the turn with the most; beside it the maximum; dashed: the limit of {limit}",
        parts,
        [str(count) for count in clients],
        limit,
    )


def _fullest(row: Row) -> Turn:
    """Return the turn in which the server had the most connections."""
    return max(row.turns, key=lambda turn: turn.seen["server_connections"]["max"])


def exhaustion(rows: Sequence[Row]) -> str:
    """Return a chart of how requests ended with the largest number of clients."""
    most = max(row.clients for row in rows)
    crowded = sorted((row for row in rows if row.clients == most), key=lambda row: row.strategy)
    further = {kind for row in crowded for kind in row.errors} - set(ERRORS.values())
    return shares(
        f"How requests end when connections are exhausted: {most} clients, {_setting(rows)}",
        "all rounds; answered/s and p99 of the answered requests are medians",
        {row.strategy: ({GOOD: row.good_share, **_error_shares(row)}, _note(row)) for row in crowded},
        [GOOD, *ERRORS.values(), *sorted(further)],
    )


def _error_shares(row: Row) -> dict[str, float]:
    return {kind: count / row.answers for kind, count in row.errors.items()}


def _note(row: Row) -> str:
    p99_ms = row.latency_ms("p99_ms")
    latency = "" if p99_ms is None else f"p99 {p99_ms:,.0f} ms, "
    steady = "" if row.is_steady else ", not steady"
    return f"{row.requests_per_s:,.0f} answered/s, {latency}{row.most_connections} connections on the server{steady}"
