"""`manage.py generate_readings`: write or load synthetic device metrics of any size."""

import time
from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from rich.console import Console
from rich.progress import track

from poolhouse.arguments import whole_number
from poolhouse.display.console import console_for
from poolhouse.display.reasons import ReasonCommand
from telemetry import formats, spool
from telemetry.arguments import argument
from telemetry.formats import Columns
from telemetry.formats.times import EXAMPLE
from telemetry.generate import Fleet, interval_us_of, write, write_parquet
from telemetry.inputs import InputFile, Inputs
from telemetry.intake import BrokerUnavailableError, announce, create_job
from telemetry.watch import watch_job

DEVICES_MAX = 1_000_000
COLUMNS = Columns("time", ("device",), ("value",))


class Command(ReasonCommand):
    """Write metrics to a file, or load them."""

    help = (
        "Generate synthetic device metrics (time, device, value): a daily wave, a level per device, and noise. The "
        "same seed gives the same metrics."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options for the metrics and their destination."""
        parser.add_argument(
            "--series",
            type=whole_number(1, DEVICES_MAX),
            default=100,
            metavar="N",
            help="number of devices (default: 100)",
        )
        parser.add_argument(
            "--rate",
            type=argument(interval_us_of),
            default="1/min",
            help="measurements of each device, for example 10/s, 1/min, 4/h or 1/d (default: 1/min)",
        )
        parser.add_argument(
            "--from",
            dest="begin",
            type=argument(_time),
            required=True,
            metavar="TIME",
            help="begin of the range, in ISO 8601; UTC if it has no time zone",
        )
        parser.add_argument(
            "--to",
            dest="end",
            type=argument(_time),
            required=True,
            metavar="TIME",
            help="end of the range (exclusive)",
        )
        parser.add_argument(
            "--seed",
            type=whole_number(0, 2**32 - 1),
            default=0,
            metavar="N",
            help="seed of the random numbers (default: 0)",
        )
        target = parser.add_mutually_exclusive_group(required=True)
        target.add_argument("--out", type=Path, metavar="FILE", help="write to FILE, which ends in .csv or .parquet")
        target.add_argument(
            "--enqueue", action="store_true", help="write to the spool, and enqueue a job that loads it"
        )
        parser.add_argument(
            "--wait",
            action="store_true",
            help="with --enqueue: show progress until the job is over; exit with 1 if a batch is parked",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Generate the metrics, and print the rate."""
        fleet = Fleet(options["series"], options["rate"], options["begin"], options["end"], options["seed"])
        if fleet.row_count <= 0:
            raise CommandError(f"--to must be after --from ({fleet.begin}), got {fleet.end}", returncode=2)
        console = console_for(self.stdout, no_color=options["no_color"])
        try:
            if options["enqueue"]:
                self._enqueue(fleet, console, wait=options["wait"])
            else:
                _show(write(fleet, options["out"]), fleet, str(options["out"]), console)
        except BrokerUnavailableError as error:
            raise CommandError(str(error), returncode=1) from None
        except ValueError as error:
            raise CommandError(f"{options['out'] or 'the spool'}: {error}", returncode=2) from None

    def _enqueue(self, fleet: Fleet, console: Console, *, wait: bool) -> None:
        """Write the metrics to the spool as Parquet, which is small and cut without reading it, and load them."""
        with spool.writing(".parquet") as spooled:
            _show(_within_room(write_parquet(fleet, spooled.sink)), fleet, spooled.location, console)
        file = InputFile("generated readings", spooled.location, formats.by_name("parquet"))
        with Inputs([file]) as files:
            job = create_job(files, COLUMNS, batch_rows=settings.INGEST_BATCH_ROWS)
        announce(job.pk)
        for warning in job.warnings:
            console.print(f"WARNING: {warning}")
        console.print(f"job {job.pk}: {fleet.row_count:,} rows enqueued")
        if wait and not watch_job(job.pk, console):
            raise CommandError(f"manage.py ingest_status {job.pk} lists the parked batches", returncode=1)


def _within_room(blocks: Iterator[int]) -> Iterator[int]:
    for block in blocks:
        spool.require_room()
        yield block


def _show(blocks: Iterator[int], fleet: Fleet, name: str, console: Console) -> None:
    """Show the progress of writing, then the rate."""
    begun = time.monotonic()
    for _ in track(blocks, "generating", total=fleet.block_count, console=console, disable=not console.is_terminal):
        pass
    seconds = time.monotonic() - begun
    console.print(f"{name}: {fleet.row_count:,} rows in {seconds:.1f} s, {fleet.row_count / seconds:,.0f} rows/s")


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected a time such as {EXAMPLE} (ISO 8601), got {text!r}") from None
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
