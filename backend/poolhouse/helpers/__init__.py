"""The public helpers: `from poolhouse.helpers import …`."""

from poolhouse.helpers.hypertables import Finding, optimize_timescaledb_queries
from poolhouse.helpers.inspection import ConnectionInfo, get_connection_info, log_connection_pool_stats
from poolhouse.helpers.liveness import Health, check_connection_health
from poolhouse.helpers.transactions import ManagedTransaction, managed_transaction
from poolhouse.helpers.usage import Usage, db_connection_monitor

__all__ = [
    "ConnectionInfo",
    "Finding",
    "Health",
    "ManagedTransaction",
    "Usage",
    "check_connection_health",
    "db_connection_monitor",
    "get_connection_info",
    "log_connection_pool_stats",
    "managed_transaction",
    "optimize_timescaledb_queries",
]
