"""OpenTelemetry's semantic conventions for connection pools: the metric names, and our values for them.

https://opentelemetry.io/docs/specs/semconv/db/database-metrics/#connection-pools
"""

from collections.abc import Callable
from typing import NamedTuple

from poolhouse.process.pools import PoolState

POOL_NAME, STATE = "db.client.connection.pool.name", "db.client.connection.state"
COUNT = "db.client.connection.count"
COUNT_TEXT = "The number of connections that are currently in state described by the state attribute."


class Number(NamedTuple):
    """A metric with one value per pool."""

    name: str
    unit: str
    text: str
    read: Callable[[PoolState], int | None]
    """None: the engine does not report it"""


LIMITS = (
    Number(
        "db.client.connection.idle.max",
        "{connection}",
        "The maximum number of idle open connections allowed.",
        lambda pool: pool.idle_max,
    ),
    Number(
        "db.client.connection.idle.min",
        "{connection}",
        "The minimum number of idle open connections allowed.",
        lambda pool: pool.min,
    ),
    Number(
        "db.client.connection.max",
        "{connection}",
        "The maximum number of open connections allowed.",
        lambda pool: pool.max,
    ),
    Number(
        "db.client.connection.pending_requests",
        "{request}",
        "The number of current pending requests for an open connection.",
        lambda pool: pool.waiting,
    ),
)
TIMEOUTS = Number(
    "db.client.connection.timeouts",
    "{timeout}",
    "The number of connection timeouts that have occurred trying to obtain a connection from the pool.",
    lambda pool: pool.counts.get("timeouts"),
)
DURATIONS = {
    "connect": ("db.client.connection.create_time", "The time it took to create a new connection."),
    "wait": ("db.client.connection.wait_time", "The time it took to obtain an open connection from the pool."),
    "hold": (
        "db.client.connection.use_time",
        "The time between borrowing a connection and returning it to the pool.",
    ),
}
"""by this app's names; in seconds"""


def as_prometheus(name: str) -> str:
    """Return a name in Prometheus' spelling."""
    return name.replace(".", "_")
