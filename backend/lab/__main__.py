"""`python -m lab`: what scripts/bench opens."""

import argparse
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from sandbox.isolation import isolate, isolated_servers

isolate("bench")

from config.start import start  # noqa: E402 - it reads the environment

start("bench")

import django  # noqa: E402

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from rich.console import Console  # noqa: E402

from config.env import CHECKOUT  # noqa: E402
from lab import chart, ingest  # noqa: E402
from poolhouse.console import table  # noqa: E402
from sandbox.processes import children_of, peak_memory_bytes  # noqa: E402
from telemetry.models import IngestBatch  # noqa: E402

LIBRARIES = ("django", "celery", "redis", "psycopg2-binary", "pyarrow", "pgpq")
LABELS = {
    "psql": "psql \\copy",
    "poolhouse": "Poolhouse",
    "limit": "the limit, in order",
    "spread": "the limit, spread",
    "django": "bulk_create",
}


def compare(rows: int, rounds: int, console: Console) -> dict[str, Any]:
    """Measure the five ways in turn, round by round; give every round, medians and ratios of rows/s."""
    with isolated_servers() as place:
        call_command("migrate", verbosity=0)
        ways = ingest.Ways(place, ingest.prepare(place.data, rows))
        measured: dict[str, list[float]] = {name: [] for name in LABELS}
        with ingest.worker(place.data / "log" / "worker.log"):
            ingest.load(_first_rows(ways.material.csv))  # the worker is up, and knows its series
            for number in range(1, rounds + 1):
                for name, rates in measured.items():
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
            **_circumstances(rows),
            "rows_per_s": {name: [round(rate) for rate in rates] for name, rates in measured.items()},
            "median_rows_per_s": {name: round(rate) for name, rate in medians.items()},
            "ratio_to_psql_copy": round(medians["poolhouse"] / medians["psql"], 3),
            "ratio_to_limit": round(medians["poolhouse"] / medians["limit"], 3),
            "ratio_to_limit_spread": round(medians["poolhouse"] / medians["spread"], 3),
            "ratio_to_bulk_create": round(medians["poolhouse"] / medians["django"], 3),
        }


def _first_rows(csv: Path) -> Path:
    """Write a small file beside the large one, with a row of each series."""
    path = csv.with_name("first.csv")
    with csv.open() as source, path.open("w") as target:
        target.writelines(line for line, _ in zip(source, range(ingest.DEVICES + 1), strict=False))
    return path


def measure_parts(rows: int, parts: int) -> dict[str, Any]:
    """Load one large file, and give rows/s in each of its equal parts, by the times at which batches were finished."""
    with isolated_servers() as place:
        call_command("migrate", verbosity=0)
        csv = ingest.write_csv(place.data, rows)
        with ingest.worker(place.data / "log" / "worker.log") as worker_pid:
            ingest.load(_first_rows(csv))
            ingest.empty_table()
            ingest.load(csv)
            peaks = [peak_memory_bytes(pid) for pid in children_of(worker_pid)]
        rates = _rates_by_part(csv, parts)
        return {
            "question": "does the ingest path slow down as the hypertable grows?",
            **_circumstances(rows),
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


def _circumstances(rows: int) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT version(), extversion FROM pg_extension WHERE extname = 'timescaledb'")
        postgresql, timescaledb = cursor.fetchone()
    return {
        "command": " ".join(["scripts/bench", *sys.argv[1:]]),
        "rows": rows,
        "batch_rows": ingest.BATCH_ROWS,
        "machine": {"processors": len(_processors()), "model": _processors()[0], "memory_mib": _memory_mib()},
        "versions": {
            "python": platform.python_version(),
            "linux": platform.release(),
            "postgresql": postgresql.split()[1],
            "timescaledb": timescaledb,
            **{name: version(name) for name in LIBRARIES},
        },
    }


def _processors() -> list[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]


def _memory_mib() -> int:
    return int(Path("/proc/meminfo").read_text().split()[1]) // 1024


def _print(result: dict[str, Any], console: Console) -> None:
    made = table("way", "median rows/s#", "least#", "greatest#", "to psql#")
    for name, label in LABELS.items():
        rates, middle = result["rows_per_s"][name], result["median_rows_per_s"][name]
        share = middle / result["median_rows_per_s"]["psql"]
        made.add_row(label, f"{middle:,}", f"{min(rates):,}", f"{max(rates):,}", f"{share:.2f}")
    console.print(made)
    console.print(
        f"Poolhouse to psql: {result['ratio_to_psql_copy']}, to the limit: {result['ratio_to_limit']} in order, "
        f"{result['ratio_to_limit_spread']} spread"
    )


def _draw(result: dict[str, Any]) -> str:
    rows = [
        (LABELS[name], [float(rate) for rate in rates], name == "poolhouse")
        for name, rates in result["rows_per_s"].items()
    ]
    subtitle = (
        f"{result['rows']:,} rows, unique index, two connections; median of {len(rows[0][1])} rounds, line: least to "
        f"greatest; {result['machine']['processors']} processors"
    )
    return chart.bars("Rows per second into a hypertable", subtitle, rows, "rows/s")


def main() -> int:
    """Measure, print a table, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    experiment = parser.add_subparsers(dest="experiment", required=True)
    compared = experiment.add_parser("ingest", help="the ingest path beside psql, the limit and bulk_create")
    compared.add_argument("--rows", type=int, default=5_000_000)
    compared.add_argument("--rounds", type=int, default=5)
    compared.add_argument("--chart", type=Path, metavar="FILE", help="draw an SVG, as docs/lab/ingest.svg")
    grown = experiment.add_parser("ingest-parts", help="rows/s in each of ten equal parts of one large file")
    grown.add_argument("--rows", type=int, default=50_000_000)
    for each in (compared, grown):
        each.add_argument("--json", type=Path, metavar="FILE", help="write machine, versions and every round")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    if arguments.experiment == "ingest":
        result = compare(arguments.rows, arguments.rounds, console)
        _print(result, console)
        if arguments.chart:
            (CHECKOUT / arguments.chart).write_text(_draw(result))
    else:
        result = measure_parts(arguments.rows, parts=10)
        console.print(f"rows/s by part: {result['rows_per_s_by_part']}")
        console.print(f"last to first: {result['ratio_last_to_first_part']}")
        console.print(
            f"peak memory of the worker's processes: {result['worker_process_peak_memory_mib']} MiB, "
            f"with {result['csv_bytes']:,} bytes of CSV"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
