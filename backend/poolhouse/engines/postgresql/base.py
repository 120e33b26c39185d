"""`ENGINE = "poolhouse.engines.postgresql"`: dj_db_conn_pool's engine with the pool of this app."""

import math
import os
import threading
from typing import Any

from dj_db_conn_pool.backends.postgresql import base
from dj_db_conn_pool.core import pool_container
from django.db import OperationalError, connections
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.utils.functional import cached_property

from poolhouse.conf import options
from poolhouse.engines import leaks
from poolhouse.engines.connecting import TooSlowError
from poolhouse.engines.cursors import leased_class
from poolhouse.engines.lease import Lease
from poolhouse.engines.leased_connection import LeasedConnection
from poolhouse.engines.options import PoolOptions
from poolhouse.engines.pool import LendingPool
from poolhouse.tracing.statements import time_statements


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[misc]  # untyped upstream
    """A connection from a pool of this process."""

    connection: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        time_statements(self)

    def get_connection_params(self) -> dict[str, Any]:
        """Return the parameters of the next connection, with TCP keepalives unless OPTIONS sets them."""
        return {**self._noticing, **super().get_connection_params()}

    @cached_property
    def _noticing(self) -> dict[str, int]:
        timeout_s = max(1, int(self.pool_options.TIMEOUT))
        return {
            # An abandoned attempt must end as well, but after its caller's own timeout, whose error says more.
            # libpq takes whole seconds, 2 at least.
            "connect_timeout": max(2, math.floor(self.pool_options.TIMEOUT) + 1),
            "tcp_user_timeout": timeout_s * 1000,
            "keepalives_idle": timeout_s,
            "keepalives_interval": max(1, timeout_s // 3),
            "keepalives_count": 3,
        }

    @cached_property
    def pool_options(self) -> PoolOptions:
        """The alias' POOL_OPTIONS, validated at first use."""
        return PoolOptions.of(self.alias, self.settings_dict.get("POOL_OPTIONS", {}))

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Check out a connection.

        Raises:
            PoolTimeoutError: no connection was available within TIMEOUT.
            django.db.OperationalError: a connection could not be opened.
        """
        if self.alias == NO_DB_ALIAS:  # connects to the database postgres, which each alias has on its server
            connection = self._open(conn_params)
            return LeasedConnection(connection, Lease(), _NoPool())
        pool = self.pool_if_made() or self.lending_pool()
        return pool.connect(conn_params, self._open)

    def _open(self, conn_params: dict[str, Any]) -> Any:
        factory = conn_params.get("cursor_factory")
        if isinstance(factory, type):
            conn_params = {**conn_params, "cursor_factory": leased_class(factory)}
        return self._get_new_connection(conn_params)

    def init_connection_state(self) -> None:
        """Prepare a connection that was checked out: Django sets these for each holder."""
        super().init_connection_state()
        self.connection.lease.leaves_state = False

    def chunked_cursor(self) -> Any:
        """Return a server-side cursor, which ends with the lease."""
        cursor = super().chunked_cursor()
        self.connection.end_with_lease(cursor.cursor)
        return cursor

    def _set_autocommit(self, autocommit: bool) -> None:
        with self.wrap_database_errors:
            # Setting it releases the GIL, even if the value does not change.
            if self.connection.autocommit != autocommit:
                self.connection.autocommit = autocommit

    def close(self) -> None:
        """Check the connection in to its pool."""
        BaseDatabaseWrapper.close(self)  # dj_db_conn_pool's method only adds a log line each time

    def close_pool(self) -> None:
        """Close this alias' connections, as Django asks when their parameters have changed."""
        if pool := self.pool_if_made():
            pool.dispose()

    def lending_pool(self) -> LendingPool:
        """Return this process' pool of the alias, which is made at the first call."""
        with pool_container.lock:
            if not pool_container.has(self.alias):
                pool_container.put(self.alias, LendingPool(self.alias, self.pool_options, self._get_dialect()))
            pool: LendingPool = pool_container.get(self.alias)
            return pool

    def pool_if_made(self) -> LendingPool | None:
        """Return this process' pool of the alias, or None if it was not made yet."""
        pool: LendingPool | None = dict.get(pool_container, self.alias)  # the container's get raises an error
        return pool

    def keep_warm(self, within_s: float | None = None) -> None:
        """Open the missing connections of the pool's MIN_SIZE.

        Args:
            within_s: how long to wait; None: TIMEOUT. A connection opened later is kept as well.

        Raises:
            django.db.OperationalError, the driver's Error: a connection could not be opened.
        """
        pool = self.lending_pool()
        pool.recover_abandoned()
        try:
            pool.keep_warm(self.get_connection_params(), self._open, within_s)
        except TooSlowError as error:
            raise OperationalError(f"{self.alias}: {error}") from None

    def look_for_leaks(self) -> None:
        """Log the leak suspects if POOLHOUSE["LEAK_THRESHOLD_S"] is set."""
        pool, threshold_s = self.pool_if_made(), options().LEAK_THRESHOLD_S
        if pool is not None and threshold_s > 0:
            leaks.look_for_leaks(self.alias, pool.leases(), threshold_s)

    def forget_connection(self) -> None:
        """Drop, in a forked child, the parent's connection."""
        self.connection = None


class _NoPool:
    """The owner of connections outside every pool; the driver closes them when they are no longer referenced."""

    def check_in(self, connection: LeasedConnection) -> None:
        """Close the connection, since no pool keeps it."""
        connection.lease.is_over = True
        connection.raw.close()


def _disown_parents_connections() -> None:
    """Detach, in a forked child, from the parent's connections: they are not used, closed or checked in here."""
    pool_container.lock = threading.Lock()  # another thread of the parent may have held it at the fork
    for alias, pool in list(pool_container.items()):
        if isinstance(pool, LendingPool):
            pool.disown()
            _parents_pools.append(pool)
            del pool_container[alias]
    for wrapper in connections.all(initialized_only=True):
        if isinstance(wrapper, DatabaseWrapper):
            wrapper.forget_connection()


# Kept, so that the garbage collector does not close the connections in them.
_parents_pools: list[LendingPool] = []
os.register_at_fork(after_in_child=_disown_parents_connections)
