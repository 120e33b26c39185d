"""`manage.py clean_spool`: remove from the spool what nobody needs any more."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from poolhouse.display.reasons import ReasonCommand
from telemetry.arguments import whole_number
from telemetry.retention import clean, removable

HOURS_MAX = 24 * 366


class Command(ReasonCommand):
    """A door to `telemetry.retention.clean`; beat has it done as well."""

    help = (
        "Remove inputs of jobs that have been done for INGEST_INPUT_GRACE_S, files that belong to no job, and rejects "
        "of jobs that have been deleted."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument(
            "--older-than",
            type=whole_number(0, HOURS_MAX),
            default=24,
            metavar="HOURS",
            help="leave younger files that belong to no job alone: an upload may be going on (default: 24)",
        )
        parser.add_argument(
            "--parked-and-cancelled",
            action="store_true",
            help="also inputs of jobs with parked or cancelled batches, which cannot be retried after that",
        )
        parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")

    def handle(self, *args: Any, **options: Any) -> None:
        """Remove, and say what."""
        files = size_bytes = 0
        remove = removable if options["dry_run"] else clean
        for entry in remove(
            timedelta(hours=options["older_than"]), parked_and_cancelled=options["parked_and_cancelled"]
        ):
            files, size_bytes = files + 1, size_bytes + entry.size_bytes
            self.stdout.write(f"{entry.location} {entry.size_bytes:,} bytes")
        done = "would be removed" if options["dry_run"] else "removed"
        self.stdout.write(f"{files} files, {size_bytes:,} bytes {done}")
