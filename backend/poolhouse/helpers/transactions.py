"""Transactions with an isolation level, timeouts and retries after serialization failures and deadlocks."""

import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from types import TracebackType
from typing import Literal, ParamSpec, TypeVar, get_args

from django.db import DEFAULT_DB_ALIAS, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from poolhouse.tracing.log_lines import sqlstate_of

logger = logging.getLogger(__name__)

Isolation = Literal["read committed", "repeatable read", "serializable"]
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# Errors with which the server rolls a transaction back for the sake of another one, so that it can be repeated. Not
# lost connections, after which it is unknown whether the COMMIT was done.
REPEATABLE = {"40001": "serialization failure", "40P01": "deadlock"}
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0


def managed_transaction(  # noqa: PLR0913 - keyword arguments that are independent of each other
    alias: str = DEFAULT_DB_ALIAS,
    *,
    isolation: Isolation | None = None,
    read_only: bool = False,
    statement_timeout_ms: int | None = None,
    lock_timeout_ms: int | None = None,
    settings: Mapping[str, str | int] | None = None,
    attempts: int = 1,
) -> "ManagedTransaction":
    """Return a transaction, for `with` or as a decorator. Its settings end with it: none stays in the session.

    It is always the outermost one: within another transaction its settings could not be guaranteed.

    Args:
        alias: of a PostgreSQL database.
        isolation: None: the server's default.
        read_only: whether the server refuses writes.
        statement_timeout_ms: of each statement; 0: no timeout.
        lock_timeout_ms: how long a statement waits for a lock; 0: no timeout.
        settings: other settings of the server for this transaction: {"work_mem": "64MB", "jit": "off"}.
        attempts: how often a decorated function may run, if the server takes its transaction back for a serialization
            failure or a deadlock. Whatever it does beside the database, it then does again.

    Raises:
        ValueError: an argument is invalid.
    """
    timeouts = {"statement_timeout": statement_timeout_ms, "lock_timeout": lock_timeout_ms}
    local = {**{name: value for name, value in timeouts.items() if value is not None}, **(settings or {})}
    if attempts < 1:
        raise ValueError(f"attempts: expected 1 or more, got {attempts}")
    return ManagedTransaction(alias, _preamble(isolation, read_only=read_only, local=local), attempts)


class ManagedTransaction:
    """A transaction of `managed_transaction`. As a decorator, several threads can use it."""

    def __init__(self, alias: str, preamble: Sequence[str], attempts: int) -> None:
        self._alias, self._preamble, self._attempts = alias, preamble, attempts
        self._block: AbstractContextManager[None] | None = None

    def __enter__(self) -> None:
        if self._attempts > 1:
            raise TypeError(f"attempts={self._attempts} needs a decorated function: a block cannot be repeated")
        if self._block is not None:
            raise TypeError("a managed transaction can be entered once: create another")
        self._block = self._transaction()
        self._block.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._block is not None  # noqa: S101 - __enter__ has set it
        return self._block.__exit__(kind, error, trace)

    def __call__(self, function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        """Decorate a function so that each call runs in a transaction."""
        if iscoroutinefunction(function) or isgeneratorfunction(function) or isasyncgenfunction(function):
            raise TypeError(
                f"expected a plain function, got {function.__qualname__}: it would run after the transaction has ended"
            )

        @wraps(function)
        def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            attempt = 1
            while True:
                committed = threading.Event()
                try:
                    with self._transaction():
                        # The first of its hooks: after an error of a later hook the transaction is committed.
                        transaction.on_commit(committed.set, using=self._alias)
                        return function(*args, **kwargs)
                except OperationalError as error:
                    reason = REPEATABLE.get(sqlstate_of(error))
                    if reason is None or committed.is_set() or attempt >= self._attempts:
                        raise
                _pause(f"{self._alias}: {function.__qualname__}: {reason}", attempt, self._attempts)
                attempt += 1

        return run

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with transaction.atomic(using=self._alias, durable=True):
            if self._preamble:
                connection = connections[self._alias]
                round_trips = ["; ".join(self._preamble)] if _takes_several(connection) else self._preamble
                with connection.cursor() as cursor:
                    for statements in round_trips:
                        cursor.execute(statements)
            yield


def _takes_several(connection: BaseDatabaseWrapper) -> bool:
    """Return True if the driver accepts several statements at once: psycopg 3 not if it prepares or binds them."""
    given = connection.settings_dict["OPTIONS"]
    return not given.get("server_side_binding") and given.get("prepare_threshold") is None


def _preamble(isolation: Isolation | None, *, read_only: bool, local: Mapping[str, str | int]) -> list[str]:
    """Return the statements that set up the transaction."""
    if isolation is not None and isolation not in get_args(Isolation):
        raise ValueError(f"isolation: expected one of {', '.join(get_args(Isolation))}, got {isolation!r}")
    modes = [f"ISOLATION LEVEL {isolation.upper()}"] if isolation else []
    modes += ["READ ONLY"] if read_only else []
    statements = [f"SET TRANSACTION {', '.join(modes)}"] if modes else []
    return statements + [_set_local(name, value) for name, value in local.items()]


def _set_local(name: str, value: str | int) -> str:
    if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", name):
        raise ValueError(f"expected the name of a server setting, such as work_mem, got {name!r}")
    quoted = str(value).replace("'", "''")
    return f"SET LOCAL {name} = '{quoted}'"


def _pause(what: str, attempt: int, attempts: int) -> None:
    """Sleep for a random time that grows with each attempt, so that two transactions do not collide again."""
    pause_s = random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt))  # noqa: S311 - not for cryptography
    logger.info("%s in attempt %d of %d; retrying in %.0f ms", what, attempt, attempts, pause_s * 1000)
    time.sleep(pause_s)
