"""What a project calls by itself: `from poolhouse.helpers import …`."""

from poolhouse.hypertables import Finding, optimize_timescaledb_queries
from poolhouse.inspection import ConnectionInfo, get_connection_info, log_connection_pool_stats
from poolhouse.liveness import Health, check_connection_health
from poolhouse.transactions import ManagedTransaction, managed_transaction
from poolhouse.usage import Usage, db_connection_monitor

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
