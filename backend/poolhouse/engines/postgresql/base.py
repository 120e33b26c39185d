"""`ENGINE = "poolhouse.engines.postgresql"`: dj_db_conn_pool's, with what it lacks."""

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
from poolhouse.engines.cursors import lent
from poolhouse.engines.lending import Lease, LentConnection
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
        """Give the parameters of the next connection; where nothing is said, a dead way to the server is noticed."""
        return {**self._noticing, **super().get_connection_params()}

    @cached_property
    def _noticing(self) -> dict[str, int]:
        timeout_s = max(1, int(self.pool_options.TIMEOUT))
        return {
            # An abandoned attempt has to end as well, but not before its caller's own timeout, whose error says more.
            # libpq takes whole seconds, 2 at least.
            "connect_timeout": max(2, math.floor(self.pool_options.TIMEOUT) + 1),
            "tcp_user_timeout": timeout_s * 1000,
            "keepalives_idle": timeout_s,
            "keepalives_interval": max(1, timeout_s // 3),
            "keepalives_count": 3,
        }

    @cached_property
    def pool_options(self) -> PoolOptions:
        """This alias' POOL_OPTIONS."""
        return PoolOptions.of(self.alias, self.settings_dict.get("POOL_OPTIONS", {}))

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Borrow a connection.

        Raises:
            PoolTimeoutError: there was none within TIMEOUT.
            django.db.OperationalError: it could not be opened.
        """
        if self.alias == NO_DB_ALIAS:  # every alias has one, on a server of its own
            connection = self._open(conn_params)
            return LentConnection(connection, Lease(), _Nobody())
        pool = self.pool_if_made() or self.lending_pool()
        return pool.connect(conn_params, self._open)

    def _open(self, conn_params: dict[str, Any]) -> Any:
        factory = conn_params.get("cursor_factory")
        if isinstance(factory, type):
            conn_params = {**conn_params, "cursor_factory": lent(factory)}
        return self._get_new_connection(conn_params)

    def init_connection_state(self) -> None:
        """Prepare a connection that was borrowed: what Django sets, it sets for each borrower."""
        super().init_connection_state()
        self.connection.lease.leaves_state = False

    def chunked_cursor(self) -> Any:
        """Open a cursor that the server has as well; it ends with the lease."""
        cursor = super().chunked_cursor()
        self.connection.end_with_lease(cursor.cursor)
        return cursor

    def _set_autocommit(self, autocommit: bool) -> None:
        with self.wrap_database_errors:
            # The driver lets other threads have the interpreter to set it, even to what it is already.
            if self.connection.autocommit != autocommit:
                self.connection.autocommit = autocommit

    def close(self) -> None:
        """Give the connection back."""
        BaseDatabaseWrapper.close(self)  # dj_db_conn_pool's own writes a line for the log each time, and nothing else

    def close_pool(self) -> None:
        """Close this alias' connections, as Django asks where what they were opened for has changed."""
        if pool := self.pool_if_made():
            pool.dispose()

    def lending_pool(self) -> LendingPool:
        """Give this alias' pool of this process; it is made when it is first asked for."""
        with pool_container.lock:
            if not pool_container.has(self.alias):
                pool_container.put(self.alias, LendingPool(self.alias, self.pool_options, self._get_dialect()))
            pool: LendingPool = pool_container.get(self.alias)
            return pool

    def pool_if_made(self) -> LendingPool | None:
        """Give this alias' pool of this process, unless nobody has asked for a connection yet."""
        pool: LendingPool | None = dict.get(pool_container, self.alias)  # the container's own get raises
        return pool

    def keep_warm(self, within_s: float | None = None) -> None:
        """Open what is missing of the pool's MIN_SIZE.

        Args:
            within_s: how long that may take; None: TIMEOUT. What is open later is kept as well.

        Raises:
            django.db.OperationalError, the driver's Error: one could not be opened.
        """
        pool = self.lending_pool()
        pool.find_forgotten()
        try:
            pool.keep_warm(self.get_connection_params(), self._open, within_s)
        except TooSlowError as error:
            raise OperationalError(f"{self.alias}: {error}") from None

    def look_for_leaks(self) -> None:
        """Log what is held for longer than POOLHOUSE["LEAK_THRESHOLD_S"], if that is wanted."""
        pool, threshold_s = self.pool_if_made(), options().LEAK_THRESHOLD_S
        if pool is not None and threshold_s > 0:
            leaks.look_for_leaks(self.alias, pool.leases(), threshold_s)

    def forget_connection(self) -> None:
        """Forget, in a forked child, the connection that is the parent's."""
        self.connection = None


class _Nobody:
    """Lends connections that are of no pool; the driver closes what nobody refers to."""

    def take_back(self, lent: LentConnection) -> None:
        """Close it."""
        lent.lease.is_over = True
        lent.raw.close()


def _disown_parents_connections() -> None:
    """In a forked child: nothing that the parent had is used, closed or returned here."""
    pool_container.lock = threading.Lock()  # another thread of the parent may have held it
    for alias, pool in list(pool_container.items()):
        if isinstance(pool, LendingPool):
            pool.disown()
            _parents_pools.append(pool)
            del pool_container[alias]
    for wrapper in connections.all(initialized_only=True):
        if isinstance(wrapper, DatabaseWrapper):
            wrapper.forget_connection()


# Kept, so that no collector closes what is in them.
_parents_pools: list[LendingPool] = []
os.register_at_fork(after_in_child=_disown_parents_connections)
