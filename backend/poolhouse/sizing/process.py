"""The pool settings of one process: POOL_SIZE, MIN_SIZE, MAX_OVERFLOW and TIMEOUT, each with its reason."""

from dataclasses import dataclass
from math import ceil

from poolhouse.formatting import counted, duration
from poolhouse.sizing.queue import Demand, Load, Pool, Target, pool_of

# TCP retransmits a lost packet after 1 s, and TIMEOUT includes connecting: with less, one lost packet is an error.
TIMEOUT_LEAST_S, TIMEOUT_MOST_S = 2, 30
# The share of callers that wait longer than the wait that TIMEOUT is a multiple of.
RARE = 1e-4
TIMEOUT_MARGIN = 2
# A pool opens an overflow connection at once, although its caller could wait a moment, and closes it at check-in: in a
# pool that is too small, each checkout above its size is a login. An idle connection costs the server less.
OVERFLOW = 0
THREADS_UNKNOWN = "the number of threads of a process is unknown (pass --threads)"
WHY_NO_OVERFLOW = (
    "an overflow connection is opened for one checkout and closed at check-in, a login each time; an idle connection "
    "costs almost nothing"
)


@dataclass(frozen=True)
class Threads:
    """The limit of a process' callers, for example gunicorn's threads."""

    count: int
    connections_each: int = 1
    """connections of this pool that a request holds at once, including those of threads that it starts"""
    are_known: bool = True
    """False: derived from the most connections that were in use at once"""

    @property
    def most(self) -> int:
        """The most connections that can be in use."""
        return self.count * self.connections_each

    @property
    def least(self) -> int:
        """With fewer, threads that hold some and wait for another can deadlock: HikariCP's minimum."""
        return self.count * (self.connections_each - 1) + 1


@dataclass(frozen=True)
class Setting:
    """A setting with its value and reason."""

    name: str
    value: int
    reason: str


@dataclass(frozen=True)
class ProcessAdvice:
    """The pool of one process."""

    demand: Demand
    threads: Threads | None
    least: int
    """MIN_SIZE: enough for the usual load"""
    size: int
    """POOL_SIZE: enough for a burst"""
    timeout_s: int
    settings: tuple[Setting, ...]
    warnings: tuple[str, ...]

    @property
    def most(self) -> int:
        """The most connections that the process can open."""
        return self.size + OVERFLOW

    @property
    def pool(self) -> Pool:
        """The whole pool under the usual load."""
        return pool_of(self.demand.load, self.size)

    def wait_s(self, share: float) -> float:
        """Return a quantile of the wait; 0 if there is a connection for each thread."""
        return 0.0 if self.threads and self.size >= self.threads.most else self.pool.wait_s(share)


def advise_process(demand: Demand, threads: Threads | None = None) -> ProcessAdvice:
    """Choose the pool settings of a process.

    Args:
        demand: the load of this process and its target.
        threads: the limit of its callers; None: unknown.
    """
    needed = demand.in_burst
    size = _within(threads, needed.connections)
    least = min(size, demand.steady.connections)
    rare_s = 0.0 if threads and size >= threads.most else pool_of(needed.load, size).wait_s(1 - RARE)
    timeout_s = min(TIMEOUT_MOST_S, max(TIMEOUT_LEAST_S, ceil(TIMEOUT_MARGIN * rare_s)))
    settings = (
        Setting("POOL_SIZE", size, _why_size(demand, needed, size, threads)),
        Setting("MIN_SIZE", least, _why_least(least, size)),
        Setting("MAX_OVERFLOW", OVERFLOW, WHY_NO_OVERFLOW),
        Setting("TIMEOUT", timeout_s, _why_timeout(rare_s)),
    )
    return ProcessAdvice(demand, threads, least, size, timeout_s, settings, tuple(_warnings(demand.load, threads)))


def _within(threads: Threads | None, connections: int) -> int:
    return min(max(connections, threads.least), threads.most) if threads else connections


def _why_size(demand: Demand, needed: Pool, size: int, threads: Threads | None) -> str:
    in_use = _in_use(demand)
    if threads and size == threads.most:
        return f"{in_use}; {_threads(threads)} can use at most {threads.most}, so no caller waits"
    if threads and size == threads.least and size > needed.connections:
        return (
            f"{needed.connections} would meet the target, but {_threads(threads)} need "
            f"{threads.count} × ({threads.connections_each} − 1) + 1, or they can deadlock waiting for each other"
        )
    then = "then, " if demand.burst > 1 else ""
    return f"{in_use}; {then}with {size}, {_kept(needed, demand.target)}{_with_one_less(needed, demand.target)}"


def _in_use(demand: Demand) -> str:
    load, burst = demand.load, demand.burst
    then = f", {load.in_use * burst:.3g} in a burst of {burst:g} × the load" if burst > 1 else ""
    return f"{_rate(load)} × {duration(load.holds.mean_s)} = {load.in_use:.3g} in use (Little's law){then}"


def _kept(pool: Pool, target: Target) -> str:
    return f"p{target.share * 100:g} wait is {duration(pool.wait_s(target.share))}"


def _with_one_less(pool: Pool, target: Target) -> str:
    if pool.connections == 1:
        return ""
    less = pool_of(pool.load, pool.connections - 1)
    if not less.is_stable:
        return f"; {less.connections} cannot serve the load"
    return f", with {less.connections} it is {duration(less.wait_s(target.share))}"


def _why_least(least: int, size: int) -> str:
    if least == size:
        return "opened at the start: the usual load needs all of them"
    return "opened at the start: they meet the target at the usual load; a burst opens the others"


def _why_timeout(rare_s: float) -> str:
    waits = f"only 1 of {1 / RARE:,.0f} callers waits longer than {duration(rare_s)}" if rare_s else "no caller waits"
    return f"seconds; in a burst {waits}, so a longer wait is the sign of a fault, and the caller should get an error"


def _warnings(load: Load, threads: Threads | None) -> list[str]:
    if threads is None:
        return [f"{THREADS_UNKNOWN}: POOL_SIZE may be too large, since a process uses no more connections than threads"]
    if not threads.are_known:
        return [f"{THREADS_UNKNOWN}: POOL_SIZE is limited to the {threads.count} connections that were in use at once"]
    if load.in_use < threads.most:
        return []
    return [
        f"{_threads(threads)} can use {counted(threads.most, 'connection')}, and the load needs {load.in_use:.3g}: "
        "requests queue in front of the process, whatever the pool size; add threads or processes"
    ]


def _threads(threads: Threads) -> str:
    if not threads.are_known:
        return f"the {counted(threads.count, 'caller')} seen at once"
    each = f" × {counted(threads.connections_each, 'connection')}" if threads.connections_each > 1 else ""
    return counted(threads.count, "thread") + each


def _rate(load: Load) -> str:
    return f"{load.rate_per_s:,.4g} checkouts/s"
