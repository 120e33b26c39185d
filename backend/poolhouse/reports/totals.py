"""What has happened in the pools of a service: numbers that go up, whichever of its processes come and go.

Each process adds to them what is new since it last did, so nothing is taken away when it ends. A number's name is
`alias:what:which`, as in default:count:timeouts, default:wait:57 (a bucket) or default:wait:total_us.
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
    """The pools of one alias in all processes of a service, those that have ended included."""

    counts: Counter[str] = field(default_factory=Counter)
    """what was counted, by its name in `poolhouse.measures.meter.COUNTERS`"""
    durations: dict[str, Histogram] = field(default_factory=dict)
    """wait, hold and connect, as far as the engine tells them"""


def numbers_of(pools: Iterable[PoolState]) -> Numbers:
    """Take a process's pools apart into numbers that go up."""
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
    """Give what is new, and 0 for a number that was not there before, so that it is seen before it goes up.

    A number that went down has begun anew, as when Celery closes Django's pool after a task: then all of it is new.
    """
    found = {name: number - before.get(name, 0) for name, number in now.items()}
    return {
        name: now[name] if increment < 0 else increment
        for name, increment in found.items()
        if increment or name not in before
    }


def totals_of(numbers: Mapping[str, int]) -> dict[str, Totals]:
    """Put the numbers of a service together again, by alias."""
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
