"""A pool of connections as SimPy plays it: the oracle of the formulas in `poolhouse.sizing`."""

from collections.abc import Callable, Generator, Iterable
from heapq import heapreplace
from math import log, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

Draw = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]
"""draws so many hold times; they are 1 in the mean"""


def exponential(chance: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Draw holds of the squared coefficient of variation 1."""
    return chance.exponential(1, count)


def log_normal(chance: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Draw holds of the squared coefficient of variation 4: many short ones, and a long tail."""
    return chance.lognormal(-log(5) / 2, sqrt(log(5)), count)


def waits_s(connections: int, callers: Iterable[tuple[float, float]]) -> list[float]:
    """Give how long each caller waits; whoever came first is served first.

    Args:
        connections: of the pool.
        callers: for each, how long after the one before it comes, and how long it holds its connection, in seconds.
    """
    world = simpy.Environment()
    pool = simpy.Resource(world, connections)
    waits: list[float] = []

    def borrow(held_s: float) -> Generator[Any, Any, None]:
        asked_at = world.now
        with pool.request() as lent:
            yield lent
            waits.append(world.now - asked_at)
            yield world.timeout(held_s)

    def arrive() -> Generator[Any, Any, None]:
        for after_s, held_s in callers:
            yield world.timeout(after_s)
            world.process(borrow(held_s))

    world.process(arrive())
    world.run()
    return waits


def quantile(values: Iterable[float], share: float) -> float:
    """Give the value that a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[int(share * len(ordered))]


def waits_by_recursion_s(connections: int, callers: Iterable[tuple[float, float]]) -> list[float]:
    """Give the same waits by the recursion of Kiefer and Wolfowitz: no events, so ten times as many callers."""
    free_at, now, waits = [0.0] * connections, 0.0, []
    for after_s, held_s in callers:
        now += after_s
        lent_at = max(now, free_at[0])
        heapreplace(free_at, lent_at + held_s)
        waits.append(lent_at - now)
    return waits
