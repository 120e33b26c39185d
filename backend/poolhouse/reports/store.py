"""Where reports meet: Redis, with a time to live, so that a killed process disappears by itself."""

import codecs
from collections.abc import Iterable, Mapping
from functools import cache
from operator import attrgetter
from typing import NamedTuple, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from poolhouse.conf import options
from poolhouse.reports.report import ProcessReport

# Looking up a host's name needs it: imported here, and not by the reporting thread while its process forks.
codecs.lookup("idna")

# How long a service's totals outlive its last process: they are there again after a night without it.
TOTALS_TTL_S = 24 * 3600


class Reports(NamedTuple):
    """What the store had at one moment."""

    live: list[ProcessReport]
    """ordered by process name"""
    of_other_versions: int
    """live as well, but not understood here, as while a fleet is being upgraded"""


class ReportStore:
    """Reports by their keys, and an index of the keys by the time at which they expire.

    The index spares a reader from scanning a Redis that may hold a broker's queues as well. Its times are Redis' own:
    a process whose clock is wrong must not take others away.
    """

    def __init__(self, url: str, *, prefix: str, ttl_s: float, timeout_s: float) -> None:
        # No retries: the next report, or the next look, is the retry.
        self._redis = redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
        )
        self._prefix = prefix
        self._index = f"{prefix}:processes"
        self._ttl_s = ttl_s

    def publish(self, report: ProcessReport, increments: Mapping[str, int] | None = None) -> None:
        """Replace this process's report, and add to its service's totals.

        Args:
            report: of this process.
            increments: what is new since it last published, by the names of `poolhouse.reports.totals`.

        Raises:
            redis.RedisError: the store cannot be reached.

        """
        seconds, microseconds = self._redis.time()
        now, totals = seconds + microseconds / 1e6, self._totals_key(report.service)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(self._key(report.key), report.to_json(), px=int(self._ttl_s * 1000))
            pipe.zadd(self._index, {report.key: now + self._ttl_s})
            pipe.zremrangebyscore(self._index, "-inf", now)
            for name, increment in (increments or {}).items():
                pipe.hincrby(totals, name, increment)
            pipe.expire(totals, TOTALS_TTL_S)
            pipe.execute()

    def withdraw(self, key: str) -> None:
        """Remove the report of a process that ends in good order."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(self._key(key))
            pipe.zrem(self._index, key)
            pipe.execute()

    def read_all(self) -> Reports:
        """Read every live report.

        Raises:
            redis.RedisError: the store cannot be reached.

        """
        members = cast(list[bytes], self._redis.zrange(self._index, 0, -1))
        if not members:
            return Reports([], 0)
        texts = self._redis.mget([self._key("").encode() + member for member in members])
        read = [ProcessReport.from_json(text) for text in texts if text is not None]
        live = [report for report in read if report is not None]
        return Reports(sorted(live, key=attrgetter("name", "started_at")), len(read) - len(live))

    def read_totals(self, services: Iterable[str]) -> dict[str, dict[str, int]]:
        """Read what has happened in these services, by the names of `poolhouse.reports.totals`.

        Raises:
            redis.RedisError: the store cannot be reached.

        """
        names = sorted(set(services))
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(self._totals_key(name))
            answers: list[dict[bytes, bytes]] = pipe.execute()
        return {
            service: {name.decode(): int(number) for name, number in answer.items()}
            for service, answer in zip(names, answers, strict=True)
        }

    def silent_s(self, services: Iterable[str]) -> dict[str, float | None]:
        """Say for how long no process of these services has reported; None: for longer than TOTALS_TTL_S, or never.

        Raises:
            redis.RedisError: the store cannot be reached.

        """
        names = sorted(services)
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.pttl(self._totals_key(name))  # each report sets it anew
            left_ms: list[int] = pipe.execute()
        return {
            name: None if left < 0 else TOTALS_TTL_S - left / 1000 for name, left in zip(names, left_ms, strict=True)
        }

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def _key(self, key: str) -> str:
        return f"{self._prefix}:report:{key}"

    def _totals_key(self, service: str) -> str:
        return f"{self._prefix}:totals:{service}"


@cache
def store() -> ReportStore | None:
    """Give the project's store, or None where POOLHOUSE names no Redis."""
    chosen = options()
    if not chosen.REDIS_URL:
        return None
    return ReportStore(
        chosen.REDIS_URL,
        prefix=chosen.KEY_PREFIX,
        ttl_s=chosen.REPORT_TTL_S,
        timeout_s=chosen.MONITOR_TIMEOUT_S,
    )
