"""`manage.py clean_spool`: remove files from the spool that are not needed any more."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from poolhouse.arguments import whole_number
from poolhouse.display.reasons import ReasonCommand
from telemetry.retention import clean, removable

HOURS_MAX = 24 * 366


class Command(ReasonCommand):
    """Clean the spool with `telemetry.retention.clean`, which beat also runs."""

    help = (
        "Remove from the spool the inputs of jobs that have been done for INGEST_INPUT_GRACE_S, files that belong to "
        "no job, and rejected rows that are older than INGEST_REJECTS_KEEP_S or whose job was deleted."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument(
            "--older-than",
            type=whole_number(0, HOURS_MAX),
            default=24,
            metavar="HOURS",
            help="minimum age of files that belong to no job, which may be uploads in progress (default: 24)",
        )
        parser.add_argument(
            "--parked-and-cancelled",
            action="store_true",
            help="also remove inputs of jobs with parked or cancelled batches, which cannot be retried after that",
        )
        parser.add_argument("--dry-run", action="store_true", help="only list the files that would be removed")

    def handle(self, *args: Any, **options: Any) -> None:
        """Remove the files, and print their names."""
        files = size_bytes = 0
        remove = removable if options["dry_run"] else clean
        for entry in remove(
            timedelta(hours=options["older_than"]), parked_and_cancelled=options["parked_and_cancelled"]
        ):
            files, size_bytes = files + 1, size_bytes + entry.size_bytes
            self.stdout.write(f"{entry.location} {entry.size_bytes:,} bytes")
        done = "would be removed" if options["dry_run"] else "removed"
        self.stdout.write(f"{files} files, {size_bytes:,} bytes {done}")
