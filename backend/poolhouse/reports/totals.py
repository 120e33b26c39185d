"""Totals of a service's pools, which grow while its processes come and go.

Each process adds what is new since it last did, so the totals stay when it ends. The names are `alias:what:which`, as
in default:count:timeouts, default:wait:57 (a bucket) or default:wait:total_us.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from poolhouse.measures.histogram import Histogram
from poolhouse.process.pools import PoolState

DURATIONS = ("wait", "hold", "connect")
Numbers = dict[str, int]


@dataclass
class Totals:
    """The totals of one alias in all processes of a service, including those that have ended."""

    counts: Counter[str] = field(default_factory=Counter)
    """by the names of `poolhouse.measures.meter.COUNTERS`"""
    durations: dict[str, Histogram] = field(default_factory=dict)
    """wait, hold and connect, if the engine reports them"""


def numbers_of(pools: Iterable[PoolState]) -> Numbers:
    """Return a process' pools as numbers that only grow."""
    numbers: Numbers = {}
    for pool in pools:
        numbers |= {f"{pool.alias}:count:{name}": count for name, count in pool.counts.items()}
        for what in DURATIONS:
            if (histogram := getattr(pool, what)) is not None:
                numbers |= {f"{pool.alias}:{what}:{which}": count for which, count in _parts(histogram).items()}
    return numbers


def _parts(histogram: Histogram) -> dict[str, int]:
    buckets = {str(bucket): count for bucket, count in histogram.counts.items()}
    return {**buckets, "total_us": int(histogram.total_s * 1e6), "without_bucket": histogram.without_bucket}


def increments(before: Mapping[str, int], now: Mapping[str, int]) -> Numbers:
    """Return what is new, including 0 for a new name, so that it exists before it grows.

    A number that is smaller than before was reset, as when Celery closes Django's pool after a task: all of it is new.
    """
    found = {name: number - before.get(name, 0) for name, number in now.items()}
    return {
        name: now[name] if increment < 0 else increment
        for name, increment in found.items()
        if increment or name not in before
    }


def totals_of(numbers: Mapping[str, int]) -> dict[str, Totals]:
    """Rebuild the totals of a service by alias."""
    by_alias: dict[str, Totals] = {}
    for name, number in sorted(numbers.items()):
        alias, what, which = name.rsplit(":", 2)
        totals = by_alias.setdefault(alias, Totals())
        if what == "count":
            totals.counts[which] = number
        else:
            _add(totals.durations.setdefault(what, Histogram()), which, number)
    return by_alias


def _add(histogram: Histogram, which: str, number: int) -> None:
    if which == "total_us":
        histogram.total_s = number / 1e6
    elif which == "without_bucket":
        histogram.without_bucket = number
    else:
        histogram.counts[int(which)] = number
