"""The thread that looks after this process' pools for as long as the process lives, and lets them report."""

import atexit
import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from poolhouse.conf import options
from poolhouse.driver import driver_errors
from poolhouse.fork_lock import fork_lock
from poolhouse.identity import label_connections
from poolhouse.measures import statement_meter
from poolhouse.process import pools
from poolhouse.reports.publisher import Publisher
from poolhouse.reports.store import store
from poolhouse.started import is_command

if TYPE_CHECKING:  # an engine that a project need not have installed
    from poolhouse.engines.postgresql.base import DatabaseWrapper as LendingWrapper

T = TypeVar("T")
logger = logging.getLogger(__name__)

# A server that does not answer must not keep the report waiting; what is open later is kept as well.
KEEP_WARM_S = 0.2


class Keeper:
    """Looks after the pools every interval, on a daemon thread."""

    def __init__(self, publisher: Publisher | None, interval_s: float) -> None:
        self._publisher = publisher
        self._interval_s = interval_s
        self._failing: set[str] = set()
        self._pid = os.getpid()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poolhouse-keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and take this process' report away."""
        self._stopping.set()
        self._thread.join(timeout=1)
        if self._publisher:
            self._publisher.withdraw()

    def _run(self) -> None:
        # The wait comes first: a command that is over within an interval has nothing to tell.
        while not self._stopping.wait(self._interval_s) and os.getpid() == self._pid:  # a child has copies of greenlets
            with fork_lock.shared():
                self._tend()
                if self._publisher:
                    self._publisher.publish()

    def _tend(self) -> None:
        """Keep warm the pools that are in use, and look for leaks.

        A command is no request: a migration, or a shell, keeps its connection for as long as it runs.
        """
        for wrapper in self._try("pools", pools.lending_wrappers) or ():
            if not is_command():
                self._try(f"{wrapper.alias}: look_for_leaks", wrapper.look_for_leaks)
            self._try(f"{wrapper.alias}: keep_warm", partial(_keep_warm, wrapper))

    def _try(self, what: str, step: Callable[[], T]) -> T | None:
        """Take a step; what goes wrong in it is logged until it goes right again, once, and never ends the thread."""
        try:
            answer = step()
        except Exception as error:  # noqa: BLE001 - as when the host is out of threads: there may be some the next time
            if what not in self._failing:
                logger.warning("%s: %s: %s", what, type(error).__name__, error)
            self._failing.add(what)
            return None
        self._failing.discard(what)
        return answer


def _keep_warm(wrapper: "LendingWrapper") -> None:
    if wrapper.pool_if_made() is None:
        return
    try:
        wrapper.keep_warm(within_s=KEEP_WARM_S)
    except driver_errors(wrapper.alias) as error:  # its callers hear of it too
        logger.debug("%s: cannot open the MIN_SIZE connections: %s", wrapper.alias, error)


_keeper: Keeper | None = None


def begin() -> None:
    """Label this process' connections and look after its pools, here and in every child that it forks."""
    os.register_at_fork(after_in_child=_begin_in_child)
    atexit.register(_end)
    _begin()


def _begin_in_child() -> None:
    pools.forget_parent()
    statement_meter.forget_parent()
    store.cache_clear()  # its sockets are the parent's
    _begin()


def _begin() -> None:
    global _keeper  # noqa: PLW0603 - one a process, made anew in each child
    label_connections()
    target = store()
    publisher = Publisher(target) if target else None
    _keeper = Keeper(publisher, options().PUBLISH_INTERVAL_S) if publisher or pools.lending_aliases() else None
    if _keeper:
        _keeper.start()


def _end() -> None:
    if _keeper:
        _keeper.stop()
