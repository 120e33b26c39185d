"""`manage.py clean_spool`: remove from the spool what nobody needs any more."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError

from telemetry import spool
from telemetry.arguments import whole_number
from telemetry.management.database_command import DatabaseCommand
from telemetry.retention import orphans

HOURS_MAX = 24 * 366


class Command(DatabaseCommand):
    """A door to `telemetry.retention.orphans`."""

    help = (
        "Remove files that their upload left behind when the web was killed, inputs of jobs that are done, and rejects "
        "of jobs that have been deleted."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument(
            "--older-than",
            type=whole_number(0, HOURS_MAX),
            default=24,
            metavar="HOURS",
            help="leave younger files alone: they may belong to what is just being enqueued (default: 24)",
        )
        parser.add_argument(
            "--given-up",
            action="store_true",
            help="also inputs of jobs that have failed or were cancelled, which cannot be retried after that",
        )
        parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")

    def handle(self, *args: Any, **options: Any) -> None:
        """Remove, and say what."""
        files = size_bytes = 0
        try:
            for entry in orphans(timedelta(hours=options["older_than"]), given_up=options["given_up"]):
                if not options["dry_run"]:
                    spool.discard(entry.location)
                files, size_bytes = files + 1, size_bytes + entry.size_bytes
                self.stdout.write(f"{entry.location} {entry.size_bytes:,} bytes")
        except OSError as error:
            raise CommandError(f"the spool cannot be used: {error}", returncode=1) from None
        done = "would be removed" if options["dry_run"] else "removed"
        self.stdout.write(f"{files} files, {size_bytes:,} bytes {done}")
