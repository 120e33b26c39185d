"""The public API of the health report: `from poolhouse.health import …`."""

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
    """Print the health of an alias, on standard output by default."""
    from poolhouse.display.console import console_for  # it imports rich, which a health check does not need
    from poolhouse.display.health_report import draw_health

    console = console_for(out or sys.stdout)
    console.print(draw_health(ConnectionPoolMonitor(alias).health()))
