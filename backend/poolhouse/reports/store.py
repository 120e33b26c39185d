"""The store of the reports: Redis, with a time to live, so that a killed process disappears."""

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

# Resolving a host name needs it. Imported here, so that the reporting thread does not import it during a fork.
codecs.lookup("idna")

# How long a service's totals outlive its last process, so that they survive a night without it.
TOTALS_TTL_S = 24 * 3600


class Reports(NamedTuple):
    """The content of the store at one moment."""

    live: list[ProcessReport]
    """the reports, ordered by process name"""
    of_other_versions: int
    """the number of reports in another version's format, as during an upgrade of the fleet"""


class ReportStore:
    """Reports by key, and an index of the keys by their expiry times.

    The index spares a reader from scanning a Redis that may also hold a broker's queues. Its times are Redis' own: a
    process whose clock is wrong must not remove other reports.
    """

    def __init__(self, url: str, *, prefix: str, ttl_s: float, timeout_s: float) -> None:
        # No retries: the next report or query is the retry.
        self._redis = redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
        )
        self._prefix = prefix
        self._index = f"{prefix}:processes"
        self._ttl_s = ttl_s

    def publish(self, report: ProcessReport, increments: Mapping[str, int] | None = None) -> None:
        """Replace this process' report, and add to its service's totals.

        Args:
            report: of this process.
            increments: added to the totals, by the names of `poolhouse.reports.totals`.

        Raises:
            redis.RedisError: Redis is unreachable.
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
        """Remove the report of a process that ends normally."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(self._key(key))
            pipe.zrem(self._index, key)
            pipe.execute()

    def read_all(self) -> Reports:
        """Read all reports that have not expired.

        Raises:
            redis.RedisError: Redis is unreachable.
        """
        members = cast(list[bytes], self._redis.zrange(self._index, 0, -1))
        if not members:
            return Reports([], 0)
        texts = self._redis.mget([self._key("").encode() + member for member in members])
        read = [ProcessReport.from_json(text) for text in texts if text is not None]
        live = [report for report in read if report is not None]
        return Reports(sorted(live, key=attrgetter("name", "started_at")), len(read) - len(live))

    def read_totals(self, services: Iterable[str]) -> dict[str, dict[str, int]]:
        """Read the totals of these services, by the names of `poolhouse.reports.totals`.

        Raises:
            redis.RedisError: Redis is unreachable.
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
        """Return the seconds since the last report of each service; None: more than TOTALS_TTL_S ago, or never.

        Raises:
            redis.RedisError: Redis is unreachable.
        """
        names = sorted(services)
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.pttl(self._totals_key(name))  # each report sets the time to live
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
    """Return the project's store, or None if POOLHOUSE["REDIS_URL"] is empty."""
    chosen = options()
    if not chosen.REDIS_URL:
        return None
    return ReportStore(
        chosen.REDIS_URL,
        prefix=chosen.KEY_PREFIX,
        ttl_s=chosen.REPORT_TTL_S,
        timeout_s=chosen.MONITOR_TIMEOUT_S,
    )
