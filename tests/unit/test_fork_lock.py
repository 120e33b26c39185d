"""This app's threads at a fork, which waits for them for a limited time, in processes of their own."""

import os
import subprocess
import sys
import threading
import time

import pytest

from config.env import CHECKOUT
from poolhouse import fork_lock
from poolhouse.fork_lock import ForkLock

PATIENCE_S = 60

# Whatever the thread does, it holds a lock meanwhile, as of a module that it imports.
BEGIN = """
import os, sys, threading, time
from django.conf import settings
settings.configure(DATABASES={})
from poolhouse import fork_lock
from poolhouse.engines.connecting import Attempt
from poolhouse.metrics import otel
from poolhouse.overview import sources
from poolhouse.reports.keeper import Keeper
fork_lock.WAIT_MAX_S = 60
held, at_work = threading.Lock(), threading.Event()

def work(*_):
    with held:
        at_work.set()
        time.sleep(0.3)
    return []

class Publisher:
    publish = work

def answer_of_child(ask):
    reader, writer = os.pipe()  # gevent's waitpid sometimes misses the end of a child
    assert at_work.wait(60)
    if os.fork() == 0:
        os.write(writer, str(ask()).encode())
        os._exit(0)
    os.close(writer)
    return os.read(reader, 100).decode()
"""
IS_LOCKED_IN_CHILD = "\nprint(answer_of_child(held.locked))"
GREENLETS = "from gevent import monkey; monkey.patch_all()\n"
THREADS = {
    "report": "Keeper(Publisher(), 0.01).start()",
    "connect": "threading.Thread(target=Attempt(work, print).run).start()",
    "metrics": "otel.pool_states = work; threading.Thread(target=lambda: list(otel._observe_counts(None))).start()",
    "look": "sources._read_reports = work; threading.Thread(target=lambda: sources.query_all(detailed=False)).start()",
}


def printed_by(program: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "backend")}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=2 * PATIENCE_S
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


@pytest.mark.parametrize("patch", ["", GREENLETS], ids=["threads", "greenlets"])
@pytest.mark.parametrize("thread", THREADS)
def test_a_fork_waits_until_a_thread_of_this_app_holds_no_lock(thread: str, patch: str) -> None:
    assert printed_by(patch + BEGIN + THREADS[thread] + IS_LOCKED_IN_CHILD) == "False"


NEVER_DONE = """
fork_lock.WAIT_MAX_S = 0.1
end = threading.Event()
Publisher.publish = lambda self: (at_work.set(), end.wait())
Keeper(Publisher(), 0.01).start()

def work_here():
    with fork_lock.fork_lock.shared():
        return "done"

print(*(answer_of_child(work_here) for _ in range(2)), end.is_set())
end.set()
"""


def test_a_fork_waits_for_a_limited_time_and_the_child_starts_afresh() -> None:
    assert printed_by(BEGIN + NEVER_DONE) == "done done False"


GREENLETS_GO_ON = """
pids = []
Publisher.publish = lambda self: (pids.append(os.getpid()), at_work.set())
Keeper(Publisher(), 0.01).start()

def reports():
    time.sleep(0.3)
    return os.getpid() in pids

print(answer_of_child(reports))
"""


@pytest.mark.parametrize("patch", ["", GREENLETS], ids=["threads", "greenlets"])
def test_the_parent_s_keeper_does_not_report_in_the_child(patch: str) -> None:
    assert printed_by(patch + BEGIN + GREENLETS_GO_ON) == "False"


def test_no_work_begins_while_a_process_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_lock, "WAIT_MAX_S", PATIENCE_S)
    lock, order, is_asking = ForkLock(), [], threading.Event()

    def work() -> None:
        is_asking.set()
        with lock.shared():
            order.append("work")

    thread = threading.Thread(target=work)
    lock.before_fork()
    thread.start()
    is_asking.wait(PATIENCE_S)
    order.append("fork")
    lock.after_fork_in_parent()
    thread.join(PATIENCE_S)
    assert order == ["fork", "work"]


def test_work_does_not_wait_for_a_fork_that_waits_for_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_lock, "WAIT_MAX_S", PATIENCE_S)
    lock, order = ForkLock(), []

    def fork() -> None:
        lock.before_fork()
        order.append("fork")

    thread = threading.Thread(target=fork)
    with lock.shared():  # as long as Redis does not answer
        thread.start()
        while not lock._changed._waiters:  # type: ignore[attr-defined]
            time.sleep(0.001)
        with lock.shared():  # a connection is opened for a request
            order.append("work")
    thread.join(PATIENCE_S)
    assert order == ["work", "fork"]


def test_work_that_fails_does_not_hold_up_the_forks_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = ForkLock()
    with pytest.raises(ZeroDivisionError), lock.shared():
        raise ZeroDivisionError
    monkeypatch.setattr(fork_lock, "WAIT_MAX_S", None)  # a wait would not end
    lock.before_fork()
