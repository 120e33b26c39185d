"""`manage.py db_pool_status`: the pools of all processes, and the usable connections of the server."""

from argparse import ArgumentParser
from typing import Any

from rich.console import Group, RenderableType

from poolhouse.display.monitor_command import MonitorCommand
from poolhouse.display.render import draw_status, draw_watched
from poolhouse.display.trend import Trend
from poolhouse.overview.status import Status, take_status


class Command(MonitorCommand[Status]):
    """Shows the pools of all processes and the server."""

    help = "Show the connection pools of all running processes and the room left on the database server."

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._trend = Trend()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add --detailed to the common options."""
        parser.add_argument(
            "--detailed",
            action="store_true",
            help="also show each process, pool, connection, blocked session and leak suspect",
        )
        super().add_arguments(parser)

    def look(self, **options: Any) -> Status:
        """Query every source once, TimescaleDB only if it is shown."""
        return take_status(options["database"], detailed=options["detailed"] or options["json"])

    def draw(self, seen: Status, width: int, **options: Any) -> RenderableType:
        """Return the status as text, with its trend if watched."""
        if not options["watch"]:
            return Group(*draw_status(seen, detailed=options["detailed"], width=width))
        self._trend.note(seen)
        return Group(*draw_watched(seen, self._trend, detailed=options["detailed"], width=width))

    def document(self, seen: Status) -> dict[str, Any]:
        """Return the status as JSON data."""
        return seen.as_document()

    def level(self, seen: Status) -> str:
        """Return the level of the verdict."""
        return seen.verdict[0]
