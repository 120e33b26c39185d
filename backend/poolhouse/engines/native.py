"""Threads of the operating system, also where gevent has replaced threads by greenlets.

A driver in C that waits stops all greenlets of its thread. Only another thread can wait instead, or end the wait.
"""

import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

THREADS_MAX = 200
IDLE_MAX_S = 10

T = TypeVar("T")


def call(do: Callable[[], T]) -> T:
    """Make a blocking call; where threads are greenlets, on a real thread, so that the other greenlets keep running."""
    if not _has_greenlets():
        return do()
    answer: T = _threads(os.getpid(), _hub()).apply(do)
    return answer


def call_later(after_s: float, do: Callable[[], None]) -> Callable[[], None]:
    """Make a call after a delay, even if this thread is blocked; return the function that cancels it."""
    is_called_off = new_lock()
    is_called_off.acquire()

    def wait() -> None:
        if not is_called_off.acquire(timeout=after_s):
            do()

    _start_thread(wait)
    called_off: Callable[[], None] = is_called_off.release
    return called_off


def new_lock() -> Any:
    """Return a lock between threads; hold it briefly, since a greenlet that waits for it stops the others."""
    return _original("allocate_lock", "_thread")() if _has_greenlets() else threading.Lock()


def _start_thread(run: Callable[[], None]) -> None:
    if _has_greenlets():
        _original("start_new_thread", "_thread")(run, ())
    else:
        threading.Thread(target=run, name="poolhouse-watchdog", daemon=True).start()


def _has_greenlets() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and monkey.is_module_patched("threading")


def _original(name: str, module: str) -> Any:
    from gevent.monkey import get_original

    return get_original(module, name)


def _hub() -> Any:
    from gevent import get_hub

    return get_hub()


@cache
def _threads(pid: int, hub: Any) -> Any:
    """Return a thread pool of this module's own: gevent's has few threads, and its name service needs them."""
    from gevent.threadpool import ThreadPool

    return ThreadPool(THREADS_MAX, hub, idle_task_timeout=IDLE_MAX_S)
