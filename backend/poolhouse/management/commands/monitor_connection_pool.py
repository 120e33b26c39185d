"""`manage.py monitor_connection_pool`: the health of a database's connections, over the whole fleet."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import DEFAULT_DB_ALIAS, connections
from rich.console import RenderableType

from poolhouse.display.health_report import draw_health
from poolhouse.display.looking import LookingCommand
from poolhouse.identity import is_postgresql
from poolhouse.overview.health import ConnectionPoolHealth, ConnectionPoolMonitor


class Command(LookingCommand[ConnectionPoolHealth]):
    """Shows the health."""

    help = "Show whether a database's connections are HEALTHY, or why they are WARNING or CRITICAL."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, metavar="ALIAS", help="default: %(default)s")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Look, once or until Ctrl-C.

        Raises:
            CommandError: there is no such alias, or it is not PostgreSQL's.
        """
        database = connections.settings.get(options["database"])
        if database is None or not is_postgresql(database["ENGINE"]):
            raise CommandError(f"--database {options['database']}: no PostgreSQL alias of DATABASES", returncode=2)
        super().handle(*args, **options)

    def look(self, **options: Any) -> ConnectionPoolHealth:
        """Ask every source once."""
        return ConnectionPoolMonitor(options["database"]).health()

    def draw(self, seen: ConnectionPoolHealth, width: int, **options: Any) -> RenderableType:
        """Give the report as text."""
        return draw_health(seen)

    def document(self, seen: ConnectionPoolHealth) -> dict[str, Any]:
        """Give the report as JSON data."""
        return seen.as_document()

    def level(self, seen: ConnectionPoolHealth) -> str:
        """Give the verdict."""
        return seen.level
