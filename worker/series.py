"""A cache of the ids of series by metric and labels, filled from the database."""

import json
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from django.db import connection


@dataclass(frozen=True)
class Kind:
    """The metric and label names of series, which differ in the values of these labels."""

    metric: str
    label_names: tuple[str, ...]


LabelValues = tuple[str, ...]

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

_ids: dict[Kind, dict[LabelValues, int]] = {}


class UnknownSeriesError(Exception):
    """The id of a series is not in this process's cache; `learn` adds it."""


def known_ids(kind: Kind, values: Sequence[LabelValues]) -> list[int]:
    """Return the ids of series from the cache, in the order of their label values.

    Raises:
        UnknownSeriesError: an id is not in the cache.
    """
    known = _ids.get(kind, {})
    try:
        return [known[labels] for labels in values]
    except KeyError as error:
        raise UnknownSeriesError(f"series of metric {kind.metric!r} with label values {error}") from None


def learn(kinds: Iterable[Kind], values: Set[LabelValues]) -> None:
    """Cache the ids of series for `known_ids`, and create series that do not exist.

    Do not call it in a transaction that may be rolled back, since the ids stay in the cache.
    """
    if sum(map(len, _ids.values())) > CACHE_KEYS:
        _ids.clear()
    for kind in kinds:
        known = _ids.setdefault(kind, {})
        known.update(_fetch(kind, sorted(values - known.keys())))


def forget_series() -> None:
    """Empty the cache, so that ids are queried again."""
    _ids.clear()


def _fetch(kind: Kind, values: Sequence[LabelValues]) -> dict[LabelValues, int]:
    """Create missing series, then query all ids. The values are sorted, so that workers lock in the same order."""
    metrics, labels = [kind.metric] * len(values), [_as_json(kind.label_names, labels) for labels in values]
    with connection.cursor() as cursor:
        cursor.execute(CREATE_MISSING, [metrics, labels])
        cursor.execute(FIND, [metrics, labels])
        return {values[position - 1]: id_ for position, id_ in cursor.fetchall()}


def _as_json(names: tuple[str, ...], values: LabelValues) -> str:
    return json.dumps(dict(zip(names, values, strict=True)), sort_keys=True, ensure_ascii=False)
