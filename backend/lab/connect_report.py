"""The experiment on the cost of a connection: measurements in turn, and their report."""

import random
from itertools import chain, product
from statistics import linear_regression, median, quantiles
from typing import Any

from rich.console import Console

from config.env import Database, Monitor, read
from lab import chart_connect, connect, connect_held
from lab.circumstances import circumstances
from lab.connect import DRIVERS, WAYS, Bench, Client, Driver, Opened
from lab.connect_relay import relay
from lab.progress import Progress
from poolhouse.display.table import Table
from sandbox.isolation import isolated_servers
from sandbox.servers import pgbouncer

CONNECTS = 10
"""in a round, for each way and driver"""
DELAYS_MS = (0, 1, 5, 20)
"""of each direction of the network"""
HELD_WAYS = ("socket", "tcp", "tls")
# The figures that recommendations of pools quote.
LOCAL_MS, NETWORK_MS, MEMORY_MIB = (5, 50), (50, 200), (5, 20)

Pair = tuple[Driver, str]


def compare(rounds: int, console: Console) -> dict[str, Any]:
    """Open connections in each way in random order, then over a network, then hold many; return all figures."""
    with Progress(console) as progress, isolated_servers() as place:
        progress("preparing a server that offers every way to connect")
        database = read(Database)
        pooler = pgbouncer(place, database, read(Monitor), admin=database.db_user)  # may empty its pools
        pooler.start()
        try:
            bench = connect.prepare(place, pooler)
            connect_held.make_tables(bench)
            # Before the other measurements: later PgBouncer has free memory of clients that have left.
            pooler_client_kib = connect_held.pooler_client_kib(bench)
            with connect.client() as client:
                opened = _open_in_turn(bench, client, rounds, progress)
                network = _stretch(bench, client, _some(rounds), progress)
                libpq = client.libpq
            result = {
                "question": "what a connection costs: milliseconds to open it, round trips, memory while it is held",
                **circumstances(),
                "libpq": libpq,
                "rounds": rounds,
                "connects_a_round": CONNECTS,
                "ways": {way: each.label for way, each in WAYS.items()},
                "open_ms": _by_driver({pair: _figures(spans) for pair, spans in opened.items()}),
                "network": _by_driver(network),
                "memory_kib": {way: _backend_memory_kib(bench, way, _some(rounds)) for way in HELD_WAYS},
                "pooler_client_kib": round(pooler_client_kib, 1),
                "idle": _idle(bench, _some(rounds), progress),
            }
        finally:
            pooler.stop()
    return {**result, "claims": judge(result)}


def _some(rounds: int) -> int:
    """Return the number of repetitions of the slower parts."""
    return max(1, min(5, rounds // 4))


def _open_in_turn(bench: Bench, client: Client, rounds: int, progress: Progress) -> dict[Pair, list[list[Opened]]]:
    """Open connections in each way after a warm-up; return them by round."""
    chance = random.Random(1)  # noqa: S311 - an order, the same each time
    pairs: list[Pair] = list(product(DRIVERS, WAYS))
    opened: dict[Pair, list[list[Opened]]] = {pair: [] for pair in pairs}
    for pair in pairs:
        _open(bench, client, pair)
    for _ in progress.each(range(rounds), "round"):
        for spans in opened.values():
            spans.append([])
        for pair in chance.sample(pairs * CONNECTS, len(pairs) * CONNECTS):
            opened[pair][-1].append(_open(bench, client, pair))
    return opened


def _open(bench: Bench, client: Client, pair: Pair) -> Opened:
    driver, way = pair[0], WAYS[pair[1]]
    if way.is_cold:
        bench.empty_pool(way)
    with client.open(driver, bench.options(way)) as opened:
        return opened


def _figures(rounds: list[list[Opened]]) -> dict[str, Any]:
    """Return the median, the 95th percentile and the rounds' medians, without and with a first answer."""
    figures = {}
    for what in ("connect", "answer"):
        spans = [[getattr(opened, what) for opened in taken] for taken in rounds]
        together = list(chain.from_iterable(spans))
        figures[what] = {
            "median": round(median(together), 2),
            "p95": round(quantiles(together, n=20, method="inclusive")[-1], 2),
            "rounds": [round(median(taken), 2) for taken in spans],
        }
    return figures


def _stretch(bench: Bench, client: Client, passes: int, progress: Progress) -> dict[Pair, dict[str, Any]]:
    """Connect over networks of growing delay; return the base and the round trips of a fitted line."""
    ways = [way for way, each in WAYS.items() if each.to != "socket" and not each.is_cold]
    stretched = {}
    for way in progress.each(ways, "network: way"):
        port = (bench.pooler if WAYS[way].to == "pgbouncer" else bench.server).port
        with relay(port) as network:
            for driver in DRIVERS:
                options = bench.options(WAYS[way], through=network)
                least_ms: dict[float, float] = {}
                for delay_ms in DELAYS_MS * passes:
                    network.delay_s = delay_ms / 1e3
                    with client.open(driver, options, ask=False) as opened:
                        trips = network.trips
                    network.is_idle.wait()
                    # Other load on the machine can only add time.
                    least_ms[2 * delay_ms] = min(opened.connect, least_ms.get(2 * delay_ms, opened.connect))
                fit = linear_regression(list(least_ms), list(least_ms.values()))
                stretched[driver, way] = {
                    "trips": trips,
                    "fitted_trips": round(fit.slope, 2),
                    "base_ms": round(fit.intercept, 2),
                    "ms_by_round_trip_ms": {str(rtt_ms): round(ms, 2) for rtt_ms, ms in least_ms.items()},
                }
    return stretched


def _by_driver(figures: dict[Pair, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {driver: {way: found for (of, way), found in figures.items() if of == driver} for driver in DRIVERS}


def _backend_memory_kib(bench: Bench, way: str, times: int) -> dict[str, dict[str, float]]:
    samples = [connect_held.backend_memory_kib(bench, way) for _ in range(times)]
    return {
        state: {kind: median(sample[state][kind] for sample in samples) for kind in samples[0][state]}
        for state in connect_held.STATES
    }


def _idle(bench: Bench, rounds: int, progress: Progress) -> dict[str, Any]:
    """Return how long an update takes beside idle connections, and the memory of each of these."""
    taken = [connect_held.idle_round(bench) for _ in progress.each(range(rounds), "idle connections: round")]
    return {
        "update_us": {str(count): [round(spans_us[count], 1) for spans_us, _ in taken] for count in connect_held.IDLE},
        "server_kib_each": round(median(kib for _, kib in taken), 1),
    }


def judge(result: dict[str, Any]) -> list[dict[str, str]]:
    """Compare common claims about connections with the measurements.

    A claimed range is confirmed if it contains all measurements, corrected if it overlaps them, otherwise refuted.
    """
    direct = [result["open_ms"]["psycopg2"][way]["connect"]["median"] for way in ("socket", "tcp", "tls")]
    fits = [result["network"]["psycopg2"][way] for way in ("tcp", "tls")]
    needed_ms = [[(wanted - fit["base_ms"]) / fit["fitted_trips"] for wanted in NETWORK_MS] for fit in fits]
    near_ms = [fit["base_ms"] + fit["fitted_trips"] for fit in fits]
    memories = [_own_mib(result, state) for state in ("one_query", "many_queries")]
    return [
        {
            "claim": "a connection takes 5-50 ms locally",
            "verdict": _verdict(direct, LOCAL_MS),
            "measured": f"{min(direct):.1f} to {max(direct):.1f} ms (Unix socket, TCP, TLS; with SCRAM)",
        },
        {
            "claim": "a connection takes 50-200 ms over the network",
            "verdict": _verdict(near_ms, NETWORK_MS),
            "measured": f"{near_ms[0]:.0f} (TCP) or {near_ms[1]:.0f} ms (TLS) where a round trip takes 1 ms; the "
            f"claimed time needs a round trip of {needed_ms[0][0]:.0f} to {needed_ms[0][1]:.0f} (TCP) or "
            f"{needed_ms[1][0]:.0f} to {needed_ms[1][1]:.0f} ms (TLS)",
        },
        {
            "claim": "a connection consumes about 10 MB",
            "verdict": _verdict(memories, MEMORY_MIB),
            "measured": f"{memories[0]:.1f} MiB of its own memory after one query, {memories[1]:.1f} after many, "
            f"{_own_mib(result, 'many_prepared'):.1f} with prepared statements",
        },
    ]


def _verdict(measured: list[float], said: tuple[float, float]) -> str:
    within = [said[0] <= figure <= said[1] for figure in measured]
    if all(within):
        return "confirmed"
    overlaps = min(measured) <= said[1] and max(measured) >= said[0]
    return "corrected" if overlaps else "refuted"


def _own_mib(result: dict[str, Any], state: str) -> float:
    """Return the MiB that only this connection needs, without the server's shared buffers."""
    kib: dict[str, float] = result["memory_kib"]["tcp"][state]
    return (kib["anonymous"] + kib["page_tables"]) / 1024


def print_comparison(result: dict[str, Any], console: Console) -> None:
    """Print the result of `compare` as tables."""
    made = Table("way", "driver", "connect ms#", "p95#", "rounds#", "first answer#", "p95#", "trips#")
    for way, label in result["ways"].items():
        for driver, name in DRIVERS.items():
            connected, answered = (result["open_ms"][driver][way][what] for what in ("connect", "answer"))
            trips = result["network"][driver].get(way, {}).get("trips", "")
            spread = f"{min(connected['rounds'])}–{max(connected['rounds'])}"
            figures = (connected["median"], connected["p95"], spread, answered["median"], answered["p95"], trips)
            made.add_row(label, name, *map(str, figures))
    console.print(made)
    console.print("trips: round trips until connected; over a network it takes base + trips × round-trip time")
    _print_memory(result, console)
    for one in result["claims"]:
        console.print(f"“{one['claim']}”: {one['verdict']}: {one['measured']}")


def _print_memory(result: dict[str, Any], console: Console) -> None:
    made = Table("backend, KiB", "", "resident#", "proportional#", "private#", "anonymous#", "page tables#")
    for way, states in result["memory_kib"].items():
        for state, label in connect_held.STATE_LABELS.items():
            made.add_row(result["ways"][way], label, *(f"{kib:,.0f}" for kib in states[state].values()))
    console.print(made)
    console.print(f"each idle connection adds {result['idle']['server_kib_each']:,.0f} KiB to the server's memory")
    console.print(f"each client adds {result['pooler_client_kib']} KiB to PgBouncer's memory")
    beside = {count: median(spans) for count, spans in result["idle"]["update_us"].items()}
    times = ", ".join(f"{us:.1f} beside {count}" for count, us in beside.items())
    console.print(f"µs of an update by the number of idle connections: {times}")


def draw(result: dict[str, Any]) -> str:
    """Return a chart of the result of `compare` as SVG: time to open a connection, and memory of its backend."""
    opening = [
        (
            label,
            [(name, *_drawn(result["open_ms"][driver][way]["connect"])) for driver, name in DRIVERS.items()],
            _trips(result, way),
        )
        for way, label in result["ways"].items()
    ]
    held = [
        (label, [("", _own_mib(result, state), [_own_mib(result, state)])], "")
        for state, label in connect_held.STATE_LABELS.items()
    ]
    machine = f"{result['rounds']} rounds, {result['machine']['processors']} processors, on loopback"
    times = "milliseconds to open it: median, line: minimum to maximum of the rounds; right: what a network adds"
    memory = f"MiB of the backend's own memory, queries on {connect_held.TABLES} tables"
    return chart_connect.panels("What a connection costs", machine, [(times, "ms", opening), (memory, "MiB", held)])


def _drawn(figures: dict[str, Any]) -> tuple[float, list[float]]:
    return figures["median"], figures["rounds"]


def _trips(result: dict[str, Any], way: str) -> str:
    trips = {result["network"][driver].get(way, {}).get("trips") for driver in DRIVERS} - {None}
    return f"+ {' or '.join(map(str, sorted(trips)))} × RTT" if trips else ""
