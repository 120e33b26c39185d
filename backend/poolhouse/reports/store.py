"""Where reports meet: Redis, with a time to live, so that a killed process disappears by itself."""

import time
from collections.abc import Iterable, Mapping
from functools import cache
from typing import cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from poolhouse.conf import options
from poolhouse.reports.report import ProcessReport

# How long a service's totals outlive its last process: they are there again after a night without it.
TOTALS_TTL_S = 24 * 3600


class ReportStore:
    """Reports by process name, and an index of the names by the time at which they expire.

    The index spares a reader from scanning a Redis that may hold a broker's queues as well.
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
        now, totals = time.time(), self._totals_key(report.service)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(self._key(report.name), report.to_json(), px=int(self._ttl_s * 1000))
            pipe.zadd(self._index, {report.name: now + self._ttl_s})
            pipe.zremrangebyscore(self._index, "-inf", now - 60)
            for name, increment in (increments or {}).items():
                pipe.hincrby(totals, name, increment)
            pipe.expire(totals, TOTALS_TTL_S)
            pipe.execute()

    def withdraw(self, name: str) -> None:
        """Remove the report of a process that ends in good order."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(self._key(name))
            pipe.zrem(self._index, name)
            pipe.execute()

    def read_all(self) -> list[ProcessReport]:
        """Read every live report, ordered by process name.

        Raises:
            redis.RedisError: the store cannot be reached.

        """
        members = cast(list[bytes], self._redis.zrange(self._index, 0, -1))
        names = sorted(member.decode() for member in members)
        if not names:
            return []
        texts = self._redis.mget([self._key(name) for name in names])
        reports = (ProcessReport.from_json(text) for text in texts if text is not None)
        return [report for report in reports if report is not None]

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

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def _key(self, name: str) -> str:
        return f"{self._prefix}:report:{name}"

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
