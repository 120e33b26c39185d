"""This thread's connection and this process' pools, without querying the server."""

import logging
import time
from dataclasses import dataclass
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from poolhouse.backends import is_lending, is_queuepool
from poolhouse.driver import driver, require_postgresql
from poolhouse.process.pools import PoolState, held_s, is_pooled, pool_states

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConnectionInfo:
    """This thread's connection to a database, and the pool that it belongs to."""

    alias: str
    engine: str
    driver: str
    is_open: bool
    """whether this thread has a connection; if not, the next four are None"""
    backend_pid: int | None
    """of the server process; behind PgBouncer, a number of PgBouncer's"""
    in_transaction: bool | None
    held_s: float | None
    """since this thread has it"""
    age_s: float | None
    """since it was opened; None with Django's native pool, which does not report it"""
    application_name: str
    """by the settings, for this connection or the next"""
    pool: PoolState


def get_connection_info(alias: str = DEFAULT_DB_ALIAS, *, connect: bool = False) -> ConnectionInfo:
    """Return this thread's connection, without querying the server.

    Args:
        alias: of a PostgreSQL database.
        connect: take a connection if this thread has none.

    Raises:
        KeyError: DATABASES has no PostgreSQL database with this alias.
        django.db.OperationalError: with connect, none could be had.
    """
    require_postgresql(alias)
    pool = next(state for state in pool_states() if state.alias == alias)
    wrapper = connections[alias]
    if connect and wrapper.connection is None:
        wrapper.ensure_connection()
        return get_connection_info(alias)
    connection: Any = wrapper.connection
    # A connection closed within a transaction stays in the wrapper until the transaction ends.
    is_open = connection is not None and not getattr(connection, "closed", True)
    return ConnectionInfo(
        alias=alias,
        engine=pool.engine,
        driver=driver(alias).__name__,
        is_open=is_open,
        backend_pid=connection.info.backend_pid if is_open else None,
        in_transaction=wrapper.in_atomic_block if is_open else None,
        held_s=held_s(wrapper) if is_open else None,
        age_s=_age_s(wrapper) if is_open else None,
        application_name=wrapper.settings_dict["OPTIONS"].get("application_name", ""),
        pool=pool,
    )


def log_connection_pool_stats() -> dict[str, PoolState]:
    """Log one line for each PostgreSQL alias of this process, and return the figures by alias."""
    states = {state.alias: state for state in pool_states()}
    for state in states.values():
        logger.info(
            "%s (%s, %s): %d in use, %d idle, %s waiting; size %s, max %s",
            state.alias,
            state.kind,
            state.engine,
            state.in_use,
            state.idle,
            "?" if state.waiting is None else state.waiting,
            "any" if state.size is None else state.size,
            "any" if state.max is None else state.max,
            extra={"alias": state.alias, "in_use": state.in_use, "idle": state.idle, "waiting": state.waiting},
        )
    return states


def _age_s(wrapper: Any) -> float | None:
    database = wrapper.settings_dict
    if is_lending(database["ENGINE"]):
        age_s: float = wrapper.lending_pool().age_s(wrapper.connection.raw)
        return age_s
    if is_queuepool(database["ENGINE"]):
        return time.time() - float(wrapper.connection._connection_record.starttime)
    return None if is_pooled(database) else held_s(wrapper)
