"""Means of a metric by time buckets."""

from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from telemetry.chunks import query_spans


@dataclass(frozen=True)
class BucketMean:
    """The mean of a metric in one bucket, for one value of a label."""

    bucket: datetime
    label: str
    mean: float
    readings: int


def bucket_means(metric: str, label: str, width: str) -> list[BucketMean]:
    """Return the means of a metric by bucket and label value.

    Each query covers a limited number of chunks, because every chunk takes locks of the whole server.

    Args:
        metric: the metric's name.
        label: the label by whose values the means are grouped.
        width: the width of a bucket as a PostgreSQL interval, such as '1 month' or '15 minutes'.

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
                """,  # noqa: S608 - the conditions are constants; without them chunks outside the range would be locked
                {"width": width, "label": label, "metric": metric, "begin": begin, "end": end},
            )
            for bucket, name, total, count in cursor.fetchall():
                before, seen = sums.get((bucket, name), (0.0, 0))
                sums[bucket, name] = (before + total, seen + count)
    return [BucketMean(*key, total / count, count) for key, (total, count) in sorted(sums.items())]
