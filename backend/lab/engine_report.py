"""The engine's experiment: what is measured, in which turn, and how it is told."""

from statistics import median
from typing import Any

from rich.console import Console

from lab import chart, engine, middleware
from lab.circumstances import circumstances
from poolhouse.display.console import table
from sandbox.isolation import isolated_servers


def compare(rounds: int, console: Console) -> dict[str, Any]:
    """Measure each way in turn, round by round; give every round, medians and ratios of requests/s."""
    with isolated_servers() as place:
        rates: dict[str, list[float]] = {way: [] for way in engine.WAYS}
        for number in range(1, rounds + 1):
            for way, measured in rates.items():
                measured.append(engine.requests_per_s(way, place.data))
            console.print(
                f"round {number}: " + ", ".join(f"{way} {measured[-1]:,.0f}" for way, measured in rates.items())
            )
        medians = {way: median(measured) for way, measured in rates.items()}
        return {
            "question": "requests per second, one query a request, by how connections are kept",
            **circumstances(),
            "web": {"processes": engine.PROCESSES, "threads": engine.THREADS, "clients": engine.CLIENTS},
            "requests_per_s": {way: [round(rate) for rate in measured] for way, measured in rates.items()},
            "median_requests_per_s": {way: round(rate) for way, rate in medians.items()},
            "ratio_to_plain_without_ping": round(medians["poolhouse"] / medians["plain"], 3),
            "ratio_to_plain_with_ping": round(medians["poolhouse"] / medians["plain_ping"], 3),
            "ratio_to_native": round(medians["poolhouse"] / medians["native"], 3),
            "ratio_of_leak_detection_on_to_off": round(medians["leaks"] / medians["poolhouse"], 3),
            "middleware_us": round(middleware.cost_us(), 1),
        }


def print_comparison(result: dict[str, Any], console: Console) -> None:
    """Print a table of what `compare` gave."""
    made = table("connections kept by", "median requests/s#", "least#", "greatest#", "to ours#")
    ours = result["median_requests_per_s"]["poolhouse"]
    for way, label in engine.LABELS.items():
        rates, middle = result["requests_per_s"][way], result["median_requests_per_s"][way]
        made.add_row(label, f"{middle:,}", f"{min(rates):,}", f"{max(rates):,}", f"{middle / ours:.2f}")
    console.print(made)
    console.print(f"the middleware adds {result['middleware_us']} µs to a request with one query")


def draw(result: dict[str, Any]) -> str:
    """Draw it, as SVG."""
    rows = [
        (label, [float(rate) for rate in result["requests_per_s"][way]], way == "poolhouse")
        for way, label in engine.LABELS.items()
    ]
    subtitle = (
        f"one query a request, gunicorn {engine.PROCESSES} × {engine.THREADS}, {engine.CLIENTS} clients; median of "
        f"{len(rows[0][1])} rounds, line: least to greatest; {result['machine']['processors']} processors"
    )
    return chart.bars("Requests per second", subtitle, rows, "requests/s")
