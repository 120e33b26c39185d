"""`manage.py monitor_connection_pool`: the health report of a database's connections."""

from typing import Any

from rich.console import RenderableType

from poolhouse.display.health_report import draw_health
from poolhouse.display.monitor_command import MonitorCommand
from poolhouse.overview.health import ConnectionPoolHealth, ConnectionPoolMonitor


class Command(MonitorCommand[ConnectionPoolHealth]):
    """Shows the health report of a database."""

    help = "Show the health of a database's connections: HEALTHY, WARNING or CRITICAL, with the reasons."
    default_database = "default, or the first PostgreSQL database"

    def look(self, **options: Any) -> ConnectionPoolHealth:
        """Query every source once, and judge the health."""
        return ConnectionPoolMonitor(options["database"]).health()

    def draw(self, seen: ConnectionPoolHealth, width: int, **options: Any) -> RenderableType:
        """Return the report as text."""
        return draw_health(seen)

    def document(self, seen: ConnectionPoolHealth) -> dict[str, Any]:
        """Return the report as JSON data."""
        return seen.as_document()

    def level(self, seen: ConnectionPoolHealth) -> str:
        """Return the level of the verdict."""
        return seen.level
