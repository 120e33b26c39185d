"""A checkout or check-in interrupted at any moment: no connection is leaked, lost or checked out twice."""

import dis
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache
from itertools import pairwise
from traceback import walk_stack, walk_tb
from types import CodeType, FrameType
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from billiard.pool import soft_timeout_sighandler
from django.db import DatabaseError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from poolhouse.engines import alive, connecting, lease, leased_connection, permits, slot
from poolhouse.engines import pool as pool_module
from poolhouse.engines.pool import LendingPool
from tests.conftest import DEADLINE_S, await_that
from tests.integration.test_engine import OURS, MakePool, _database, ask, borrowed, pid_of, pool, pool_of
from tests.integration.test_engine_stress import backends_of

__all__ = ["_database", "pool_of"]

SIZE, OVERFLOW, ROUNDS = 1, 1, 200
MODULES = {module.__file__ for module in (alive, connecting, lease, leased_connection, permits, pool_module, slot)}
# Of the standard library what starts a thread and waits until it runs; the rest of it holds locks of the process'.
STARTING = {threading.Thread.start.__code__, threading.Event.wait.__code__}
# A signal that comes while the collector runs, or an object's end, is raised there, and Python can only report it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

Scenario = Callable[[str], None]


class Interruption(BaseException):
    """The exception of a signal handler, or gevent's timeout."""


class Interrupts:
    """Raises at one of the moments at which a signal handler may; counts them."""

    def __init__(self, at: int | None) -> None:
        self.at, self.moments, self.place = at, set[tuple[CodeType, int]](), ""
        self.is_checkout = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        """Trace a call, and then each instruction of it."""
        code, position = frame.f_code, frame.f_lasti
        if code.co_filename not in MODULES and not (code in STARTING and _is_checkout(frame)):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and position in _moments(code) and (code, position) not in self.moments:
            self.moments.add((code, position))
            if len(self.moments) == self.at:
                self.place = f"{code.co_qualname}, line {frame.f_lineno}"
                self.is_checkout = _is_checkout(frame)
                raise Interruption
        return self


def _is_checkout(frame: FrameType) -> bool:
    return any(one.f_code is LendingPool.connect.__code__ for one, _ in walk_stack(frame))


@cache
def _moments(code: CodeType) -> frozenset[int]:
    """Return the instructions before which Python may raise what a signal's handler does, and those that begin a line.

    It looks for signals after a call, when a function begins, and when a loop goes back; not where a `with` block ends,
    before its lock is released.
    """
    instructions = list(dis.get_instructions(code))
    moments = {after.offset for one, after in pairwise(instructions) if one.opname.startswith(("CALL", "RESUME"))}
    moments |= {one.argval for one in instructions if one.opname.startswith("JUMP_BACKWARD")}
    moments |= {one.offset for one in instructions if one.starts_line is not None}
    nothing = [("LOAD_CONST", None)] * 3  # what __exit__ is called with
    for at in range(1, len(instructions)):
        if [(one.opname, one.argval) for one in instructions[at : at + 3]] == nothing:
            begin = at - (instructions[at - 1].opname == "SWAP")  # past a value that is returned
            moments -= {one.offset for one in instructions[begin : at + 5]}
    return frozenset(moments)


def interrupted(scenario: Scenario, alias: str, at: int | None) -> Interrupts:
    """Run a scenario with an interruption before an instruction; afterwards the pool is sound.

    Of a checkout this holds even while somebody keeps the error.
    """
    interrupts = Interrupts(at)
    before = sys.gettrace()
    try:
        try:
            sys.settrace(interrupts)
            scenario(alias)
        except Interruption:
            sys.settrace(before)
            if interrupts.is_checkout:
                assert_sound(alias)
        finally:
            sys.settrace(before)
        if not interrupts.is_checkout:
            assert_sound(alias)
    except Exception as error:
        error.add_note(f"after an interruption in {interrupts.place}")
        raise
    return interrupts


def assert_sound(alias: str) -> None:
    """Assert that as many connections as allowed can be used at once, and that nothing else is counted."""
    made = pool(alias)
    assert_no_lock_is_held(alias)
    with ExitStack() as held:
        wrappers = [held.enter_context(borrowed(alias)) for _ in range(SIZE + OVERFLOW)]
        assert len({ask(one, "SELECT pg_backend_pid()") for one in wrappers}) == SIZE + OVERFLOW
        assert made.open == made.checkedout() == len(made.leases()) == SIZE + OVERFLOW
    assert (made.checkedout(), made.waiting, made.leases()) == (0, 0, [])
    assert made.open == made.checkedin() <= SIZE


def assert_no_lock_is_held(alias: str) -> None:
    """Assert that another thread can use the pool: its lock is reentrant, so this one would not notice."""
    other = threading.Thread(target=use, args=(alias,), daemon=True)
    other.start()
    other.join(DEADLINE_S)
    assert not other.is_alive(), "the interrupted thread holds a lock of the pool"


def use(alias: str) -> None:
    with borrowed(alias) as wrapper:
        ask(wrapper, "SELECT 1")


def open_and_use(alias: str) -> None:
    pool(alias).dispose()
    use(alias)


def use_beside_another(alias: str) -> None:
    """Return a scenario in which the second connection is closed at check-in."""
    with borrowed(alias), borrowed(alias):
        pass


def leave_a_transaction_and_state(alias: str) -> None:
    with borrowed(alias) as wrapper:
        ask(wrapper, "SELECT set_config('work_mem', '7MB', false)")
        wrapper.set_autocommit(False)
        ask(wrapper, "SELECT 1")


def fail_to_connect(alias: str) -> None:
    options = connections.settings[alias]["OPTIONS"]
    try:
        connections.settings[alias]["OPTIONS"] = {**options, "sslmode": "verify-full"}
        pool(alias).dispose()
        with suppress(OperationalError), borrowed(alias):
            pass
    finally:
        connections.settings[alias]["OPTIONS"] = options


def wait(alias: str) -> None:
    """Wait for what another thread checks in once this one waits or is done."""
    is_done = threading.Event()

    def hold_until_waited_for() -> None:
        with ExitStack() as held:
            for _ in range(SIZE + OVERFLOW):
                held.enter_context(borrowed(alias))
            are_held.set()
            await_that(lambda: pool(alias).waiting or is_done.is_set())

    are_held = threading.Event()
    holder = threading.Thread(target=hold_until_waited_for)
    holder.start()
    try:
        assert are_held.wait(DEADLINE_S)
        use(alias)
    finally:
        is_done.set()
        holder.join()


SCENARIOS = [use, open_and_use, use_beside_another, leave_a_transaction_and_state, fail_to_connect, wait]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.__name__)
def test_an_interruption_at_any_instruction_leaves_the_pool_consistent(scenario: Scenario, pool_of: MakePool) -> None:
    alias = pool_of(OURS, POOL_SIZE=SIZE, MAX_OVERFLOW=OVERFLOW, TIMEOUT=DEADLINE_S)
    pid_of(alias)
    count = len(interrupted(scenario, alias, None).moments)
    for at in range(1, count + 1):
        interrupted(scenario, alias, at)
    assert backends_of(alias) == pool(alias).open


def test_a_failed_connect_releases_its_permit_on_its_own_thread() -> None:
    released: list[tuple[None, str]] = []

    def connect() -> None:
        raise OperationalError("refused")

    attempt = connecting.Attempt(connect, lambda opened: released.append((opened, threading.current_thread().name)))
    with pytest.raises(OperationalError, match="refused"):
        attempt.opened_within(DEADLINE_S)
    assert released[0] == (None, connecting.THREAD_NAME), "an interrupted caller may never release it"


def test_a_soft_time_limit_during_a_close_reaches_the_task(pool_of: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    def close(connection: Any) -> None:
        connection.close()
        raise SoftTimeLimitExceeded

    alias = pool_of(OURS, POOL_SIZE=SIZE, MAX_OVERFLOW=OVERFLOW)
    pid_of(alias)
    monkeypatch.setattr(pool(alias)._dialect, "do_close", close)
    with pytest.raises(SoftTimeLimitExceeded):
        pool(alias).dispose()
    monkeypatch.undo()
    assert_sound(alias)


def test_a_kept_error_keeps_no_locals_of_the_engine(pool_of: MakePool) -> None:
    alias = pool_of(OURS)
    pid_of(alias)
    pool(alias).dispose()

    def open_(params: dict[str, Any]) -> None:
        wanted_by_an_error_page = params
        raise OperationalError("refused", wanted_by_an_error_page)

    with pytest.raises(OperationalError) as raised:
        pool(alias).connect({"dbname": "a"}, open_)
    locals_of = {frame.f_code.co_name: frame.f_locals for frame, _ in walk_tb(raised.tb)}
    assert locals_of["open_"]["wanted_by_an_error_page"] == {"dbname": "a"}
    assert [locals_of[name] for name in ("_check_out", "_take_slot", "_open", "opened_within", "_make_slot")] == [
        {}
    ] * 5


def raise_interruption(*_: Any) -> None:
    raise Interruption


def ask_and_close(wrapper: BaseDatabaseWrapper) -> None:
    ask(wrapper, "SELECT 1")
    wrapper.close()


class Alarm:
    """Interrupts `ask_and_close` after a time, perhaps repeatedly, and nothing else."""

    def __init__(self, raise_: Callable[..., None]) -> None:
        self._raise = raise_
        self.count = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        if any(one.f_code is ask_and_close.__code__ for one, _ in walk_stack(frame)):
            self.count += 1
            self._raise(number, frame)


@contextmanager
def alarm(raise_: Callable[..., None]) -> Iterator[Alarm]:
    made = Alarm(raise_)
    before = signal.signal(signal.SIGALRM, made)
    try:
        yield made
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def others_at_work(alias: str) -> Iterator[None]:
    """Have two threads check connections out and in for a block."""
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            use(alias)

    with ThreadPoolExecutor(2) as threads:
        working = [threads.submit(work) for _ in range(2)]
        try:
            yield
        finally:
            is_over.set()
        for one in working:
            one.result()


# RuntimeError: CPython's own Condition, by which a thread is started, may be broken off with its lock released already.
BROKEN_OFF = (Interruption, SoftTimeLimitExceeded, DatabaseError, RuntimeError)


@pytest.mark.parametrize("interval_s", [0, 0.0005], ids=["once", "again"])
@pytest.mark.parametrize("raise_", [raise_interruption, soft_timeout_sighandler])
def test_signals_at_any_moment_leave_the_pool_consistent(
    raise_: Callable[..., None], interval_s: float, pool_of: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # pytest's own would be interrupted as well
    alias = pool_of(OURS, POOL_SIZE=SIZE, MAX_OVERFLOW=OVERFLOW, TIMEOUT=DEADLINE_S, RECYCLE=0)
    chance = random.Random(1)
    pid_of(alias)
    made = pool(alias)
    with others_at_work(alias), alarm(raise_) as at_any_moment:
        for _ in range(ROUNDS):
            wrapper = connections.create_connection(alias)
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.03), interval_s)
                ask_and_close(wrapper)
            except BROKEN_OFF:
                pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            with suppress(DatabaseError):
                wrapper.close()
            assert 0 <= made.checkedout() <= SIZE + OVERFLOW
            assert made.open <= SIZE + OVERFLOW
    assert at_any_moment.count > 0
    made.settings = replace(made.settings, RECYCLE=-1)
    assert_sound(alias)
    assert backends_of(alias) == made.open
