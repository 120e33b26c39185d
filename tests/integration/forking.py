"""A process that reports its pools and forks, and prints what its children did. `test_forks.py` starts it."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import Any

BATCH = 10
PATIENCE_S = 60
# Far shorter than a project can set it, so that forks meet the reporting thread in all that it does.
INTERVAL_S = 0.01


class Imports:
    """This app's threads; the first one works until the process has forked."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.end = threading.Event()

    def watch(self) -> None:
        """Begin."""
        load = SourceFileLoader.exec_module

        def exec_module(loader: SourceFileLoader, module: ModuleType) -> None:
            if threading.current_thread().name.startswith("poolhouse-"):
                self.names.append(module.__name__)
                self.end.wait(PATIENCE_S)
            load(loader, module)

        SourceFileLoader.exec_module = exec_module  # type: ignore[method-assign, assignment]


def set_up(database: dict[str, Any], redis_url: str, driver: str) -> None:
    """Set up Django with the app, which begins to report."""
    sys.modules["psycopg" if driver == "psycopg2" else "psycopg2"] = None  # type: ignore[assignment]
    import django
    from django.conf import settings

    settings.configure(
        INSTALLED_APPS=["poolhouse"],
        DATABASES={"default": database},
        POOLHOUSE={
            "REDIS_URL": redis_url,
            "KEY_PREFIX": f"forking-{os.getpid()}",
            "REPORT_TTL_S": PATIENCE_S,
            "MONITOR_TIMEOUT_S": PATIENCE_S,
        },
    )
    from poolhouse.conf import options
    from poolhouse.reports import keeper

    vars(keeper)["options"] = lambda: replace(options(), PUBLISH_INTERVAL_S=INTERVAL_S)
    django.setup()


def published_as() -> str:
    """Return the key of the report that Redis has taken, without importing anything on this thread."""
    from poolhouse.reports import keeper

    own = keeper._keeper
    return own._publisher._published_as if own and own._publisher else ""


def is_at_work() -> bool:
    """Return True if the reporting thread is waiting for a Redis that does not answer."""
    from poolhouse.fork_lock import fork_lock

    return bool(fork_lock._at_work)


def is_in_store(key: str) -> bool:
    from poolhouse.reports.store import store

    reports = store()
    assert reports
    return bool(reports._redis.exists(reports._key(key)))


def await_that(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


def use_database() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def have_pools_kept_warm() -> None:
    """Make the pools of this app's engine, which the reporting thread then keeps at MIN_SIZE."""
    from poolhouse.process.pools import lending_wrappers

    for wrapper in lending_wrappers():
        wrapper.lending_pool()


def fork_one() -> int:
    """Fork a child that uses the database, and ends once its report has arrived, or by a signal after PATIENCE_S."""
    if child := os.fork():
        return child
    try:
        signal.alarm(PATIENCE_S)
        use_database()
        await_that(lambda: bool(published_as()))
        os._exit(0 if is_in_store(published_as()) else 2)
    finally:
        os._exit(1)


def main(database: dict[str, Any], redis_url: str, driver: str, count: int, redis_pid: int) -> None:
    """Fork children under a reporting parent.

    It prints how they ended, and what this app's threads in the parent imported.

    Args:
        database: of DATABASES.
        redis_url: where to report.
        driver: psycopg2, or psycopg for psycopg 3.
        count: of children.
        redis_pid: of a Redis that does not answer until the first children are there; 0: it does answer.
    """
    imports = Imports()
    imports.watch()
    if redis_pid:
        os.kill(redis_pid, signal.SIGSTOP)
    set_up(database, redis_url, driver)
    have_pools_kept_warm()
    await_that(lambda: bool(imports.names) or bool(is_at_work() if redis_pid else published_as()))
    statuses: list[int] = []
    while len(statuses) < count and not any(statuses):
        children = [fork_one() for _ in range(min(BATCH, count - len(statuses)))]
        imports.end.set()
        if redis_pid:
            os.kill(redis_pid, signal.SIGCONT)
        statuses += [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.stdout.write(json.dumps({"statuses": statuses, "imports": imports.names}))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
