"""What is asked of the time series; nothing here writes."""

from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from telemetry.chunks import query_spans


@dataclass(frozen=True)
class BucketMean:
    """The mean of a metric over a span of time, for one value of a label."""

    bucket: datetime
    label: str
    mean: float
    readings: int


def bucket_means(metric: str, label: str, width: str) -> list[BucketMean]:
    """Average a metric by time and by label; a span of chunks at a time, since each takes locks of the whole server.

    Args:
        metric: the metric's name.
        label: the label whose values are told apart.
        width: the span of a bucket, as PostgreSQL reads an interval: '1 month', '15 minutes'.

    """
    sums: dict[tuple[datetime, str], tuple[float, int]] = {}
    with connection.cursor() as cursor:
        for begin, end in query_spans():
            cursor.execute(
                f"""
                SELECT time_bucket(%(width)s::interval, time), labels ->> %(label)s, sum(value), count(*)
                FROM reading JOIN series ON series.id = series_id
                WHERE metric = %(metric)s AND labels ? %(label)s
                {"AND time >= %(begin)s" if begin else ""} {"AND time < %(end)s" if end else ""}
                GROUP BY 1, 2
                """,  # noqa: S608 - the conditions are the two above, constants so that other chunks are not locked
                {"width": width, "label": label, "metric": metric, "begin": begin, "end": end},
            )
            for bucket, name, total, count in cursor.fetchall():
                before, seen = sums.get((bucket, name), (0.0, 0))
                sums[bucket, name] = (before + total, seen + count)
    return [BucketMean(*key, total / count, count) for key, (total, count) in sorted(sums.items())]
