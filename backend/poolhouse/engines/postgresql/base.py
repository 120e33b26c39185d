"""`ENGINE = "poolhouse.engines.postgresql"`: dj_db_conn_pool's, with what it lacks."""

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from dj_db_conn_pool.backends.postgresql import base
from dj_db_conn_pool.core import pool_container
from django.db import OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.functional import cached_property

from poolhouse.conf import options
from poolhouse.engines import leaks, session
from poolhouse.engines.connecting import TooSlowError
from poolhouse.engines.lending import Lease
from poolhouse.engines.options import PoolOptions
from poolhouse.engines.pool import LendingPool


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[misc]  # untyped upstream
    """A connection from a pool of this process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lease: Lease | None = None
        self.execute_wrappers.append(self._note_statement)

    def get_connection_params(self) -> dict[str, Any]:
        """Give the parameters of the next connection; where nothing is said, a dead way to the server is noticed."""
        return {**self._noticing, **super().get_connection_params()}

    @cached_property
    def _noticing(self) -> dict[str, int]:
        timeout_s = max(1, int(self.pool_options.TIMEOUT))
        return {
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
        pool = self.pool_if_made() or self.lending_pool()
        pool.asked_by(partial(self._get_new_connection, conn_params))
        connection = pool.connect()
        self._lease = connection.lease
        return connection

    def close(self) -> None:
        """Give the connection back."""
        BaseDatabaseWrapper.close(self)  # dj_db_conn_pool's own writes a line for the log each time, and nothing else

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

    def keep_warm(self) -> None:
        """Open what is missing of the pool's MIN_SIZE.

        Raises:
            django.db.OperationalError, the driver's Error: one could not be opened.
        """
        pool = self.lending_pool()
        pool.find_forgotten()
        conn_params = self.get_connection_params()
        pool.asked_by(partial(self._get_new_connection, conn_params))
        try:
            pool.keep_warm()
        except TooSlowError as error:
            raise OperationalError(f"{self.alias}: {error}") from None

    def look_for_leaks(self) -> None:
        """Log what is held for longer than POOLHOUSE["LEAK_THRESHOLD_S"], if that is wanted."""
        pool, threshold_s = self.pool_if_made(), options().LEAK_THRESHOLD_S
        if pool is not None and threshold_s > 0:
            leaks.look_for_leaks(self.alias, pool.leases(), threshold_s)

    def forget_connection(self) -> None:
        """Forget, in a forked child, the connection that is the parent's."""
        self.connection = self._lease = None

    def _note_statement(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        if self._lease is not None:
            self._lease.last_statement = sql
            if session.leaves_state(sql):
                self._lease.leaves_state = True
        return execute(sql, params, many, context)


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
