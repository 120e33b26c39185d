"""This process's pools as OpenTelemetry's metrics, by the names of its semantic conventions.

Imported where `opentelemetry-api` is installed; which SDK exports them, and whether one does, is the project's choice.
"""

from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from inspect import signature

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from poolhouse import __version__
from poolhouse.fork_lock import fork_lock
from poolhouse.measures import meter
from poolhouse.metrics.buckets import BOUNDS_S
from poolhouse.metrics.conventions import COUNT, COUNT_TEXT, DURATIONS, LIMITS, POOL_NAME, STATE, TIMEOUTS, Number
from poolhouse.process.pools import PoolState, pool_states


def observe_pools() -> None:
    """Tell OpenTelemetry of this process's pools whenever it asks, and of each duration as it ends.

    Raises:
        RuntimeError: opentelemetry-api does not know how to be told of buckets.
    """
    if "explicit_bucket_boundaries_advisory" not in signature(Meter.create_histogram).parameters:
        raise RuntimeError(f"opentelemetry-api 1.30 or later is required, got {version('opentelemetry-api')}")
    ours = get_meter("poolhouse", __version__)
    ours.create_observable_up_down_counter(COUNT, [_observe_counts], "{connection}", COUNT_TEXT)
    for number in LIMITS:
        ours.create_observable_up_down_counter(number.name, [_observer(number)], number.unit, number.text)
    ours.create_observable_counter(TIMEOUTS.name, [_observer(TIMEOUTS)], TIMEOUTS.unit, TIMEOUTS.text)
    meter.listen(_recorder(ours))


def _pools() -> list[PoolState]:
    """Look at the pools, on whichever thread the SDK asks from."""
    with fork_lock.shared():
        return pool_states()


def _observe_counts(_: CallbackOptions) -> Iterator[Observation]:
    for pool in _pools():
        yield Observation(pool.idle, {POOL_NAME: pool.alias, STATE: "idle"})
        yield Observation(pool.in_use, {POOL_NAME: pool.alias, STATE: "used"})


def _observer(number: Number) -> Callable[[CallbackOptions], Iterable[Observation]]:
    """Make a callback that tells a number of each pool whose engine knows it."""

    def observe(_: CallbackOptions) -> Iterator[Observation]:
        for pool in _pools():
            if (value := number.read(pool)) is not None:
                yield Observation(value, {POOL_NAME: pool.alias})

    return observe


def _recorder(ours: Meter) -> meter.Listener:
    # An asynchronous instrument cannot be a histogram: each duration is recorded as it ends.
    histograms = {
        what: ours.create_histogram(name, "s", text, explicit_bucket_boundaries_advisory=BOUNDS_S)
        for what, (name, text) in DURATIONS.items()
    }

    def record(alias: str, what: str, seconds: float) -> None:
        histograms[what].record(seconds, {POOL_NAME: alias})

    return record
