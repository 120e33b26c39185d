"""The formulas compared with a simulation of the same queue."""

from collections.abc import Iterator
from math import sqrt

import numpy as np
import numpy.typing as npt
import pytest

from poolhouse.sizing.queue import Holds, Load, pool_of
from tests.simulation import Draw, exponential, log_normal, quantile, waits_by_recursion_s, waits_s

# A server that is busier forgets its past more slowly, and so do holds that vary more: those take more callers.
CALLERS = {0.5: 50_000, 0.6: 50_000, 0.7: 60_000, 0.8: 100_000}
MANY_CALLERS = 600_000


def equal(_: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    return np.ones(count)


def erlang(chance: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    return chance.gamma(2, 0.5, count)


def mixed(chance: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Return holds of two exponential distributions of equal mean share: short ones, and rare long ones."""
    share = (1 + sqrt(3 / 5)) / 2
    rates = np.where(chance.random(count) < share, 2 * share, 2 * (1 - share))
    return chance.exponential(1 / rates)


def callers(rate_per_s: float, hold: Draw, count: int, seed: int = 1) -> Iterator[tuple[float, float]]:
    chance = np.random.default_rng(seed)
    return zip(chance.exponential(1 / rate_per_s, count).tolist(), hold(chance, count).tolist(), strict=True)


@pytest.mark.parametrize(("hold", "cv2"), [(equal, 0), (erlang, 0.5), (exponential, 1), (log_normal, 4), (mixed, 4)])
@pytest.mark.parametrize(("connections", "utilisation"), [(1, 0.5), (2, 0.6), (4, 0.8), (8, 0.7), (16, 0.8)])
def test_the_predicted_p95_is_within_a_quarter_of_the_simulated(
    hold: Draw, cv2: float, connections: int, utilisation: float
) -> None:
    rate_per_s = connections * utilisation
    waits = waits_by_recursion_s(connections, callers(rate_per_s, hold, CALLERS[utilisation]))
    pool = pool_of(Load(rate_per_s, Holds(1.0, cv2)), connections)
    assert pool.wait_s(0.95) == pytest.approx(quantile(waits, 0.95), rel=0.25)


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("hold", "cv2"), [(exponential, 1), (log_normal, 4)])
@pytest.mark.parametrize("utilisation", [0.5, 0.65, 0.8])
def test_it_is_so_whatever_the_draw_for_the_pool_that_test_advise_plays(
    utilisation: float, hold: Draw, cv2: float, seed: int
) -> None:
    waits = waits_by_recursion_s(4, callers(4 * utilisation, hold, 100_000, seed))
    pool = pool_of(Load(4 * utilisation, Holds(1.0, cv2)), 4)
    assert pool.wait_s(0.95) == pytest.approx(quantile(waits, 0.95), rel=0.25)


@pytest.mark.parametrize(("connections", "utilisation"), [(1, 0.7), (4, 0.7), (16, 0.7)])
def test_of_exponential_holds_the_formula_is_exact(connections: int, utilisation: float) -> None:
    rate_per_s = connections * utilisation
    waits = waits_by_recursion_s(connections, callers(rate_per_s, exponential, MANY_CALLERS))
    pool = pool_of(Load(rate_per_s, Holds(1.0)), connections)
    assert pool.wait_probability == pytest.approx(sum(wait_s > 0 for wait_s in waits) / len(waits), rel=0.04)
    assert pool.mean_wait_s == pytest.approx(sum(waits) / len(waits), rel=0.06)
    assert pool.wait_s(0.99) == pytest.approx(quantile(waits, 0.99), rel=0.1)


def test_little_s_law_is_what_the_simulation_has_in_use() -> None:
    came = list(callers(2.8, log_normal, 100_000))
    load = Load(2.8, Holds(1.0, 4))
    span_s = sum(after_s for after_s, _ in came)
    assert load.in_use == pytest.approx(sum(held_s for _, held_s in came) / span_s, rel=0.03)


@pytest.mark.parametrize("connections", [1, 3, 16])
def test_simpy_and_the_recursion_have_every_caller_wait_as_long(connections: int) -> None:
    came = list(callers(connections * 0.8, log_normal, 20_000))
    assert waits_s(connections, came) == pytest.approx(waits_by_recursion_s(connections, came), abs=1e-6)


@pytest.mark.parametrize(("hold", "cv2"), [(equal, 0), (exponential, 1), (log_normal, 4), (mixed, 4)])
@pytest.mark.parametrize(("connections", "utilisation"), [(1, 0.9), (8, 0.6), (32, 0.9)])
def test_many_callers_at_the_ends_of_the_middle_range(
    hold: Draw, cv2: float, connections: int, utilisation: float
) -> None:
    rate_per_s = connections * utilisation
    waits = waits_by_recursion_s(connections, callers(rate_per_s, hold, MANY_CALLERS))
    pool = pool_of(Load(rate_per_s, Holds(1.0, cv2)), connections)
    assert pool.wait_s(0.95) == pytest.approx(quantile(waits, 0.95), rel=0.25)
