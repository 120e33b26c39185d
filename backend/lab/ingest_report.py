"""The ingest experiments: measurements in turn, and their report."""

import time
from pathlib import Path
from statistics import median
from typing import Any

from django.core.management import call_command
from rich.console import Console

from lab import chart, ingest
from lab.circumstances import circumstances
from lab.progress import Progress
from poolhouse.display.table import Table
from sandbox.isolation import isolated_servers
from sandbox.processes import children_of, peak_memory_bytes
from telemetry.models import IngestBatch

LABELS = {
    "psql": "psql \\copy",
    "poolhouse": "Poolhouse",
    "limit": "the limit, in order",
    "spread": "the limit, spread",
    "django": "bulk_create",
}


def compare(rows: int, rounds: int, console: Console) -> dict[str, Any]:
    """Measure the five loaders in turn, round by round; return all rounds, medians and ratios of rows/s."""
    with Progress(console) as progress, isolated_servers() as place:
        progress(f"preparing {rows:,} rows for each loader")
        call_command("migrate", verbosity=0)
        ways = ingest.Ways(place, ingest.prepare(place.data, rows))
        measured: dict[str, list[float]] = {name: [] for name in LABELS}
        with ingest.worker(place.data / "log" / "worker.log"):
            ingest.load(_first_rows(ways.material.csv))  # now the worker is up and its series exist
            for number in range(1, rounds + 1):
                for name, rates in measured.items():
                    progress(f"round {number} of {rounds}: {LABELS[name]}")
                    ingest.empty_table()
                    begun = time.perf_counter()
                    count = getattr(ways, name)()
                    rates.append(count / (time.perf_counter() - begun))
                console.print(
                    f"round {number}: " + ", ".join(f"{name} {rates[-1]:,.0f}" for name, rates in measured.items())
                )
        medians = {name: median(rates) for name, rates in measured.items()}
        return {
            "question": "rows per second into an empty hypertable with a unique index on (series, time)",
            **circumstances(),
            "rows": rows,
            "batch_rows": ingest.BATCH_ROWS,
            "rows_per_s": {name: [round(rate) for rate in rates] for name, rates in measured.items()},
            "median_rows_per_s": {name: round(rate) for name, rate in medians.items()},
            "ratio_to_psql_copy": round(medians["poolhouse"] / medians["psql"], 3),
            "ratio_to_limit": round(medians["poolhouse"] / medians["limit"], 3),
            "ratio_to_limit_spread": round(medians["poolhouse"] / medians["spread"], 3),
            "ratio_to_bulk_create": round(medians["poolhouse"] / medians["django"], 3),
        }


def _first_rows(csv: Path) -> Path:
    """Write a small file beside the large one, with one row of each series."""
    path = csv.with_name("first.csv")
    with csv.open() as source, path.open("w") as target:
        target.writelines(line for line, _ in zip(source, range(ingest.DEVICES + 1), strict=False))
    return path


def measure_parts(rows: int, parts: int, console: Console) -> dict[str, Any]:
    """Load one large file; return rows/s in each of its equal parts, by the times at which batches finished."""
    with Progress(console) as progress, isolated_servers() as place:
        progress(f"writing {rows:,} rows")
        call_command("migrate", verbosity=0)
        csv = ingest.write_csv(place.data, rows)
        with ingest.worker(place.data / "log" / "worker.log") as worker_pid:
            ingest.load(_first_rows(csv))
            ingest.empty_table()
            progress(f"loading {rows:,} rows")
            ingest.load(csv)
            peaks = [peak_memory_bytes(pid) for pid in children_of(worker_pid)]
        rates = _rates_by_part(csv, parts)
        return {
            "question": "does the ingest path slow down as the hypertable grows?",
            **circumstances(),
            "rows": rows,
            "batch_rows": ingest.BATCH_ROWS,
            "csv_bytes": csv.stat().st_size,
            "worker_process_peak_memory_mib": [peak >> 20 for peak in peaks],
            "rows_per_s_by_part": [round(rate) for rate in rates],
            "ratio_last_to_first_part": round(rates[-1] / rates[0], 3),
        }


def _rates_by_part(csv: Path, parts: int) -> list[float]:
    times = IngestBatch.objects.filter(file__name=str(csv)).values_list("enqueued_at", "finished_at")
    finished = sorted({begun for begun, _ in times} | {end for _, end in times if end is not None})
    share = (len(finished) - 1) // parts
    spans_s = [(finished[share * n + share] - finished[share * n]).total_seconds() for n in range(parts)]
    return [share * ingest.BATCH_ROWS / span_s for span_s in spans_s]


def print_comparison(result: dict[str, Any], console: Console) -> None:
    """Print the result of `compare` as a table."""
    made = Table("loader", "median rows/s#", "min#", "max#", "to psql#")
    for name, label in LABELS.items():
        rates, middle = result["rows_per_s"][name], result["median_rows_per_s"][name]
        share = middle / result["median_rows_per_s"]["psql"]
        made.add_row(label, f"{middle:,}", f"{min(rates):,}", f"{max(rates):,}", f"{share:.2f}")
    console.print(made)
    console.print(
        f"Poolhouse to psql: {result['ratio_to_psql_copy']}, to the limit: {result['ratio_to_limit']} in order, "
        f"{result['ratio_to_limit_spread']} spread"
    )


def draw(result: dict[str, Any]) -> str:
    """Return a chart of the result of `compare` as SVG."""
    rows = [
        (LABELS[name], [float(rate) for rate in rates], name == "poolhouse")
        for name, rates in result["rows_per_s"].items()
    ]
    subtitle = (
        f"{result['rows']:,} rows, unique index, two connections; median of {len(rows[0][1])} rounds, line: minimum to "
        f"maximum; {result['machine']['processors']} processors"
    )
    return chart.bars("Rows per second into a hypertable", subtitle, rows, "rows/s")


def print_parts(result: dict[str, Any], console: Console) -> None:
    """Print the result of `measure_parts`."""
    console.print(f"rows/s by part: {result['rows_per_s_by_part']}")
    console.print(f"last to first: {result['ratio_last_to_first_part']}")
    console.print(
        f"peak memory of the worker's processes: {result['worker_process_peak_memory_mib']} MiB, "
        f"with {result['csv_bytes']:,} bytes of CSV"
    )
