"""The health of a database's connections, for a project that asks from Python: `from poolhouse.health import …`."""

import sys
from typing import TextIO

from poolhouse.overview.health import (
    ConnectionPoolHealth,
    ConnectionPoolMonitor,
    ConnectionPoolStats,
    get_connection_pool_health,
)

__all__ = [
    "ConnectionPoolHealth",
    "ConnectionPoolMonitor",
    "ConnectionPoolStats",
    "get_connection_pool_health",
    "print_connection_pool_report",
]


def print_connection_pool_report(alias: str | None = None, out: TextIO | None = None) -> None:
    """Print the health of an alias for people, on standard output or elsewhere."""
    from poolhouse.display.console import console_for  # rich, which a health check need not load
    from poolhouse.display.health_report import draw_health

    console = console_for(out or sys.stdout)
    console.print(draw_health(ConnectionPoolMonitor(alias).health()))
