"""Series ids by metric and labels: asked of the database once, then remembered by the process."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from django.db import connection


class Key(NamedTuple):
    """What makes a series: its metric, and its labels by name."""

    metric: str
    names: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def labels_json(self) -> str:
        """The labels as the table has them."""
        return json.dumps(dict(zip(self.names, self.values, strict=True)), sort_keys=True, ensure_ascii=False)


CACHE_KEYS = 200_000

CREATE_MISSING = """
    INSERT INTO series (metric, labels)
    SELECT metric, labels
    FROM unnest(%s::text[], %s::jsonb[]) WITH ORDINALITY AS wanted (metric, labels, position)
    WHERE NOT EXISTS (SELECT FROM series WHERE (series.metric, series.labels) = (wanted.metric, wanted.labels))
    ORDER BY position
    ON CONFLICT DO NOTHING
"""
FIND = """
    SELECT position, id
    FROM unnest(%s::text[], %s::jsonb[]) WITH ORDINALITY AS wanted (metric, labels, position)
    JOIN series USING (metric, labels)
"""

_ids: dict[Key, int] = {}


def series_ids(keys: Sequence[Key]) -> list[int]:
    """Give the ids of series, in the order of the keys, creating those that do not exist.

    It must not be called in a transaction that may be rolled back: the ids are remembered.
    """
    if unknown := sorted({key for key in keys if key not in _ids}):
        if len(_ids) + len(unknown) > CACHE_KEYS:
            _ids.clear()
            unknown = sorted(set(keys))
        _ids.update(_fetch(unknown))
    return [_ids[key] for key in keys]


def forget_series() -> None:
    """Forget every id, so that the database is asked again."""
    _ids.clear()


def _fetch(keys: Sequence[Key]) -> dict[Key, int]:
    """Create what is missing, then read all; sorted, so that two workers lock in the same order."""
    metrics, labels = [key.metric for key in keys], [key.labels_json for key in keys]
    with connection.cursor() as cursor:
        cursor.execute(CREATE_MISSING, [metrics, labels])
        cursor.execute(FIND, [metrics, labels])
        return {keys[position - 1]: id_ for position, id_ in cursor.fetchall()}
