"""The background thread of each process: it keeps pools at MIN_SIZE, looks for leaks and publishes the report."""

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

if TYPE_CHECKING:  # an engine that a project may not have installed
    from poolhouse.engines.postgresql.base import DatabaseWrapper as LendingWrapper

T = TypeVar("T")
logger = logging.getLogger(__name__)

# A server that does not answer must not delay the report; connections opened later are kept as well.
KEEP_WARM_S = 0.2


class Keeper:
    """Maintains the pools and publishes at each interval, on a daemon thread."""

    def __init__(self, publisher: Publisher | None, interval_s: float) -> None:
        self._publisher = publisher
        self._interval_s = interval_s
        self._failing: set[str] = set()
        self._pid = os.getpid()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poolhouse-keeper", daemon=True)

    def start(self) -> None:
        """Start the thread, once per process."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and remove this process' report."""
        self._stopping.set()
        self._thread.join(timeout=1)
        if self._publisher:
            self._publisher.withdraw()

    def _run(self) -> None:
        # Wait first: a command that ends within an interval has nothing to report.
        while (
            not self._stopping.wait(self._interval_s) and os.getpid() == self._pid
        ):  # a forked child has copies of greenlets
            with fork_lock.shared():
                self._tend()
                if self._publisher:
                    self._publisher.publish()

    def _tend(self) -> None:
        """Keep the pools in use at MIN_SIZE, and look for leaks.

        Not in commands: a migration or a shell keeps its connection for as long as it runs.
        """
        for wrapper in self._try("reading the pools", pools.lending_wrappers) or ():
            if not is_command():
                self._try(f"{wrapper.alias}: looking for leak suspects", wrapper.look_for_leaks)
            self._try(f"{wrapper.alias}: opening MIN_SIZE connections", partial(_keep_warm, wrapper))

    def _try(self, what: str, step: Callable[[], T]) -> T | None:
        """Run a step; an error is logged once until the step succeeds again, and never ends the thread."""
        try:
            answer = step()
        except Exception as error:  # noqa: BLE001 - for example a host that is out of threads
            if what not in self._failing:
                logger.warning("%s failed: %s: %s", what, type(error).__name__, error)
            self._failing.add(what)
            return None
        self._failing.discard(what)
        return answer


def _keep_warm(wrapper: "LendingWrapper") -> None:
    if wrapper.pool_if_made() is None:
        return
    try:
        wrapper.keep_warm(within_s=KEEP_WARM_S)
    except driver_errors(wrapper.alias) as error:  # its callers get the error too
        logger.debug("%s: cannot open the MIN_SIZE connections: %s", wrapper.alias, error)


_keeper: Keeper | None = None


def begin() -> None:
    """Label this process' connections and start its thread, here and in every forked child."""
    os.register_at_fork(after_in_child=_begin_in_child)
    atexit.register(_end)
    _begin()


def _begin_in_child() -> None:
    pools.forget_parent()
    statement_meter.forget_parent()
    store.cache_clear()  # the sockets are the parent's
    _begin()


def _begin() -> None:
    global _keeper  # noqa: PLW0603 - one per process, made again in each child
    label_connections()
    target = store()
    publisher = Publisher(target) if target else None
    _keeper = Keeper(publisher, options().PUBLISH_INTERVAL_S) if publisher or pools.lending_aliases() else None
    if _keeper:
        _keeper.start()


def _end() -> None:
    if _keeper:
        _keeper.stop()
