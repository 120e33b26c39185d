"""`manage.py db_pool_status`: the pools of every running process, and the server's room."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from poolhouse.console import console_for
from poolhouse.render import print_status
from poolhouse.status import take_status


class Command(BaseCommand):
    """Ask every source once, and print."""

    help = "Show the connection pools of all running processes and the room left on the database server."
    requires_system_checks: list[str] = []  # it must answer when the database does not

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--detailed", action="store_true", help="each process, connection, block and pool")
        parser.add_argument("--json", action="store_true", help="the whole status as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the status."""
        status = take_status(detailed=options["detailed"] or options["json"])
        if options["json"]:
            self.stdout.write(json.dumps(status.as_document(), indent=2))
        else:
            print_status(status, console_for(self.stdout, no_color=options["no_color"]), detailed=options["detailed"])
