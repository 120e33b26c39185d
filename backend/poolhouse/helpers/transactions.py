"""Transactions with what is asked of them: how isolated, how long, and again when the server takes one back."""

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

from poolhouse.tracing.troubles import sqlstate_of

logger = logging.getLogger(__name__)

Isolation = Literal["read committed", "repeatable read", "serializable"]
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# What the server takes back for the sake of others, and would not mind a second time. A connection that is lost is not
# among them: nobody knows whether its COMMIT was done.
REPEATABLE = {"40001": "serialization failure", "40P01": "deadlock"}
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0


def managed_transaction(  # noqa: PLR0913 - each is by name, and none depends on another
    alias: str = DEFAULT_DB_ALIAS,
    *,
    isolation: Isolation | None = None,
    read_only: bool = False,
    statement_timeout_ms: int | None = None,
    lock_timeout_ms: int | None = None,
    settings: Mapping[str, str | int] | None = None,
    attempts: int = 1,
) -> "ManagedTransaction":
    """Make a transaction, for `with` or as a decorator. What it sets ends with it: nothing is left in the session.

    It is always the outermost: within another one, what it promises could not be kept.

    Args:
        alias: of a PostgreSQL database.
        isolation: None: the server's default.
        read_only: the server refuses to write.
        statement_timeout_ms: of each statement; 0: none.
        lock_timeout_ms: how long a statement waits for a lock; 0: for ever.
        settings: of the server's others, for this transaction: {"work_mem": "64MB", "jit": "off"}.
        attempts: how often a decorated function may run, if the server takes its transaction back for a serialization
            failure or a deadlock. Whatever it does beside the database, it then does again.

    Raises:
        ValueError: an argument is not one of those.
    """
    timeouts = {"statement_timeout": statement_timeout_ms, "lock_timeout": lock_timeout_ms}
    local = {**{name: value for name, value in timeouts.items() if value is not None}, **(settings or {})}
    if attempts < 1:
        raise ValueError(f"attempts: expected 1 or more, got {attempts}")
    return ManagedTransaction(alias, _preamble(isolation, read_only=read_only, local=local), attempts)


class ManagedTransaction:
    """A transaction that `managed_transaction` has made. Several threads may use one as a decorator."""

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
        assert self._block is not None  # noqa: S101 - it was entered
        return self._block.__exit__(kind, error, trace)

    def __call__(self, function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        """Decorate a function: each call is a transaction."""
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
                        # The first of its hooks. An error after it is of another hook, and the work is done.
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
                journeys = ["; ".join(self._preamble)] if _takes_several(connection) else self._preamble
                with connection.cursor() as cursor:
                    for journey in journeys:
                        cursor.execute(journey)
            yield


def _takes_several(connection: BaseDatabaseWrapper) -> bool:
    """Say whether the driver sends several statements in one journey: psycopg 3 does not what it prepares or binds."""
    given = connection.settings_dict["OPTIONS"]
    return not given.get("server_side_binding") and given.get("prepare_threshold") is None


def _preamble(isolation: Isolation | None, *, read_only: bool, local: Mapping[str, str | int]) -> list[str]:
    """Write what comes before the first statement."""
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
    """Wait longer each time, and never as long as the one with whom it collided."""
    pause_s = random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt))  # noqa: S311 - no secret
    logger.info("%s in attempt %d of %d; retrying in %.0f ms", what, attempt, attempts, pause_s * 1000)
    time.sleep(pause_s)
