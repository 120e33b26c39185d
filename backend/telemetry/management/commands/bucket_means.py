"""`manage.py bucket_means`: the means of a metric over time."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError
from django.db import DataError

from poolhouse.display.console import console_for
from poolhouse.display.reasons import ReasonCommand
from poolhouse.display.table import Table
from telemetry.buckets import BucketMean, bucket_means


class Command(ReasonCommand):
    """Print means of a metric by time bucket and label value."""

    help = "Show the mean of a metric per time bucket, with a column for each value of a label."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the metric and the options."""
        parser.add_argument("metric", metavar="METRIC", help="name of the metric")
        parser.add_argument("--by", required=True, metavar="LABEL", help="label by whose values to group")
        parser.add_argument(
            "--width",
            default="1 month",
            metavar="INTERVAL",
            help="width of a bucket, as a PostgreSQL interval (default: %(default)s)",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Query the means, and print them."""
        try:
            means = bucket_means(options["metric"], options["by"], options["width"])
        except DataError as error:
            raise CommandError(f"--width {options['width']!r}: {str(error).splitlines()[0]}", returncode=2) from None
        if not means:
            raise CommandError(f"metric {options['metric']!r} has no readings with the label {options['by']!r}")
        if options["json"]:
            self.stdout.write(json.dumps([asdict(mean) for mean in means], indent=2, default=str))
        else:
            console = console_for(self.stdout, no_color=options["no_color"])
            console.print(f"Mean {options['metric']} by {options['by']}, per {options['width']}", style="bold")
            console.print(_table(means))


def _table(means: list[BucketMean]) -> Table:
    labels = sorted({mean.label for mean in means})
    cells = {(mean.bucket, mean.label): f"{mean.mean:.1f}" for mean in means}
    made = Table("from", *(f"{label}#" for label in labels))
    for bucket in sorted({mean.bucket for mean in means}):
        begin = f"{bucket:%Y-%m-%d %H:%M}".removesuffix(" 00:00")
        made.add_row(begin, *(cells.get((bucket, label), "–") for label in labels))
    return made
