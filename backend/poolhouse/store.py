"""Where reports meet: Redis, with a time to live, so that a killed process disappears by itself."""

import time
from functools import cache
from typing import cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from poolhouse.conf import options
from poolhouse.report import ProcessReport


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

    def publish(self, report: ProcessReport) -> None:
        """Replace this process's report.

        Raises:
            redis.RedisError: the store cannot be reached.

        """
        now = time.time()
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(self._key(report.name), report.to_json(), px=int(self._ttl_s * 1000))
            pipe.zadd(self._index, {report.name: now + self._ttl_s})
            pipe.zremrangebyscore(self._index, "-inf", now - 60)
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

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def _key(self, name: str) -> str:
        return f"{self._prefix}:report:{name}"


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
