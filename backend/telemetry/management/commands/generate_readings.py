"""`manage.py generate_readings`: made-up device metrics, the same for a seed, of any size."""

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

from poolhouse.display.console import console_for
from poolhouse.display.reasons import ReasonCommand
from telemetry import formats, spool
from telemetry.arguments import argument, whole_number
from telemetry.formats import Columns
from telemetry.generate import Fleet, interval_us_of, write, write_parquet
from telemetry.inputs import InputFile, Inputs
from telemetry.intake import BrokerAwayError, announce, create_job
from telemetry.watch import watch_job

DEVICES_MAX = 1_000_000
COLUMNS = Columns("time", ("device",), ("value",))


class Command(ReasonCommand):
    """Write a file, or load what it would hold."""

    help = "Generate device metrics (time, device, value): a daily wave, each device's own level, and noise."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument(
            "--series", type=whole_number(1, DEVICES_MAX), default=100, metavar="N", help="devices (default: 100)"
        )
        parser.add_argument(
            "--rate",
            type=argument(interval_us_of),
            default="1/min",
            help="of each device: 10/s, 1/min, 4/h, 1/d (default: 1/min)",
        )
        parser.add_argument(
            "--from",
            dest="begin",
            type=argument(_time),
            required=True,
            metavar="TIME",
            help="ISO 8601; UTC if it has no zone",
        )
        parser.add_argument(
            "--to",
            dest="end",
            type=argument(_time),
            required=True,
            metavar="TIME",
            help="the first time that is left out",
        )
        parser.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, metavar="N", help="(default: 0)")
        target = parser.add_mutually_exclusive_group(required=True)
        target.add_argument("--out", type=Path, metavar="FILE", help=".csv or .parquet")
        target.add_argument("--enqueue", action="store_true", help="put it into the spool, and load it")
        parser.add_argument("--wait", action="store_true", help="for it: show progress, exit 1 if a batch is parked")

    def handle(self, *args: Any, **options: Any) -> None:
        """Generate, and say how fast."""
        fleet = Fleet(options["series"], options["rate"], options["begin"], options["end"], options["seed"])
        if fleet.row_count <= 0:
            raise CommandError("--to must be after --from", returncode=2)
        console = console_for(self.stdout, no_color=options["no_color"])
        try:
            if options["enqueue"]:
                self._enqueue(fleet, console, wait=options["wait"])
            else:
                _show(write(fleet, options["out"]), fleet, str(options["out"]), console)
        except BrokerAwayError as error:
            raise CommandError(str(error), returncode=1) from None
        except ValueError as error:
            raise CommandError(f"{options['out'] or 'the spool'}: {error}", returncode=2) from None

    def _enqueue(self, fleet: Fleet, console: Console, *, wait: bool) -> None:
        """Load a fleet's measurements by way of the spool: as Parquet, which is small, and cut without being read."""
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
    """Show the progress of writing, and how fast it was."""
    begun = time.monotonic()
    for _ in track(blocks, "generating", total=fleet.block_count, console=console, disable=not console.is_terminal):
        pass
    seconds = time.monotonic() - begun
    console.print(f"{name}: {fleet.row_count:,} rows in {seconds:.1f} s, {fleet.row_count / seconds:,.0f} rows/s")


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
