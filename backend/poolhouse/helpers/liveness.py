"""A health check of a database, outside every pool."""

import math
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from django.db import DEFAULT_DB_ALIAS

from poolhouse.driver import driver, driver_errors, own_connection_params, require_postgresql
from poolhouse.engines.connecting import TooSlowError, connect_within
from poolhouse.engines.sockets import severed_after
from poolhouse.formatting import one_line


@dataclass(frozen=True)
class Health:
    """Whether a database answered; true if it did."""

    alias: str
    is_healthy: bool
    reason: str
    """why not; empty if it did"""
    took_ms: float

    def __bool__(self) -> bool:
        return self.is_healthy


def check_connection_health(alias: str = DEFAULT_DB_ALIAS, timeout_s: float = 2.0) -> Health:
    """Open a connection to a database, run a query and close the connection.

    It does not use a pool, so that an exhausted pool is not taken for a database that is down. The timeout covers the
    name service, the network and the server.

    Args:
        alias: of a PostgreSQL database.
        timeout_s: of the whole check.

    Raises:
        KeyError: DATABASES has no PostgreSQL database with this alias.
    """
    require_postgresql(alias)
    errors: tuple[type[Exception], ...] = (TooSlowError, *driver_errors(alias))
    began_at, reason = time.perf_counter(), ""
    try:
        _ask(alias, timeout_s)
    except errors as error:
        is_late = time.perf_counter() - began_at >= timeout_s
        reason = f"no answer within {timeout_s:g} s" if is_late else one_line(error)
    return Health(alias, not reason, reason, (time.perf_counter() - began_at) * 1000)


def _ask(alias: str, timeout_s: float) -> None:
    deadline = time.perf_counter() + timeout_s
    # An abandoned attempt must end as well; libpq's minimum is two seconds.
    params = {**own_connection_params(alias), "connect_timeout": max(2, math.ceil(timeout_s))}
    with closing(connect_within(timeout_s, partial(driver(alias).connect, **params))) as connection:
        connection.autocommit = True
        with severed_after(connection, deadline - time.perf_counter()), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchall()
