"""This process' pools as OpenTelemetry metrics, named by the semantic conventions.

Imported if `opentelemetry-api` is installed. The project chooses the SDK and the exporter.
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
    """Register the pools' gauges with OpenTelemetry, and record each duration as it ends.

    Raises:
        RuntimeError: the version of opentelemetry-api does not support bucket boundaries.
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
    """Return the pools' states, on whichever thread the SDK collects."""
    with fork_lock.shared():
        return pool_states()


def _observe_counts(_: CallbackOptions) -> Iterator[Observation]:
    for pool in _pools():
        yield Observation(pool.idle, {POOL_NAME: pool.alias, STATE: "idle"})
        yield Observation(pool.in_use, {POOL_NAME: pool.alias, STATE: "used"})


def _observer(number: Number) -> Callable[[CallbackOptions], Iterable[Observation]]:
    """Return a callback that observes a value of each pool whose engine reports it."""

    def observe(_: CallbackOptions) -> Iterator[Observation]:
        for pool in _pools():
            if (value := number.read(pool)) is not None:
                yield Observation(value, {POOL_NAME: pool.alias})

    return observe


def _recorder(ours: Meter) -> meter.Listener:
    # An asynchronous instrument cannot be a histogram, so each duration is recorded as it ends.
    histograms = {
        what: ours.create_histogram(name, "s", text, explicit_bucket_boundaries_advisory=BOUNDS_S)
        for what, (name, text) in DURATIONS.items()
    }

    def record(alias: str, what: str, seconds: float) -> None:
        histograms[what].record(seconds, {POOL_NAME: alias})

    return record
