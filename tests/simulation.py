"""A pool of connections simulated with SimPy, to check the formulas of the sizing against."""

from collections.abc import Callable, Generator, Iterable
from heapq import heapreplace
from math import log, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

Draw = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]
"""draws a number of hold times whose mean is 1"""


def exponential(chance: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Return hold times with a squared coefficient of variation of 1."""
    return chance.exponential(1, count)


def log_normal(chance: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Return hold times with a squared coefficient of variation of 4: many short ones and a long tail."""
    return chance.lognormal(-log(5) / 2, sqrt(log(5)), count)


def waits_s(connections: int, callers: Iterable[tuple[float, float]]) -> list[float]:
    """Return each caller's wait; callers are served in the order of their arrival.

    Args:
        connections: the size of the pool.
        callers: for each, the seconds since the arrival of the one before it, and its hold time in seconds.
    """
    world = simpy.Environment()
    pool = simpy.Resource(world, connections)
    waits: list[float] = []

    def check_out(held_s: float) -> Generator[Any, Any, None]:
        asked_at = world.now
        with pool.request() as checkout:
            yield checkout
            waits.append(world.now - asked_at)
            yield world.timeout(held_s)

    def arrive() -> Generator[Any, Any, None]:
        for after_s, held_s in callers:
            yield world.timeout(after_s)
            world.process(check_out(held_s))

    world.process(arrive())
    world.run()
    return waits


def quantile(values: Iterable[float], share: float) -> float:
    """Return the value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[int(share * len(ordered))]


def waits_by_recursion_s(connections: int, callers: Iterable[tuple[float, float]]) -> list[float]:
    """Return the same waits by the recursion of Kiefer and Wolfowitz, ten times as fast."""
    free_at, now, waits = [0.0] * connections, 0.0, []
    for after_s, held_s in callers:
        now += after_s
        served_at = max(now, free_at[0])
        heapreplace(free_at, served_at + held_s)
        waits.append(served_at - now)
    return waits
