"""`manage.py generate_readings`: made-up device metrics, the same for a seed, of any size."""

import time
from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.progress import track

from poolhouse.console import console_for
from telemetry.arguments import argument, whole_number
from telemetry.generate import Fleet, interval_us_of, write

DEVICES_MAX = 1_000_000


class Command(BaseCommand):
    """Write a file."""

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
        parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".csv or .parquet")

    def handle(self, *args: Any, **options: Any) -> None:
        """Generate, and say how fast."""
        fleet = Fleet(options["series"], options["rate"], options["begin"], options["end"], options["seed"])
        if fleet.row_count <= 0:
            raise CommandError("--to must be after --from", returncode=2)
        console = console_for(self.stdout, no_color=options["no_color"])
        begun = time.monotonic()
        try:
            blocks = write(fleet, options["out"])
            for _ in track(
                blocks, "generating", total=fleet.block_count, console=console, disable=not console.is_terminal
            ):
                pass
        except (ValueError, OSError) as error:
            raise CommandError(f"{options['out']}: {error}", returncode=2) from None
        seconds = time.monotonic() - begun
        console.print(
            f"{options['out']}: {fleet.row_count:,} rows in {seconds:.1f} s, {fleet.row_count / seconds:,.0f} rows/s"
        )


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
