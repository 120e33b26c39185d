"""Series' ids by metric and labels: asked of the database once, then remembered by the process."""

import json
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from django.db import connection


@dataclass(frozen=True)
class Kind:
    """What series of a batch have in common; the values of their labels, in that order, tell them apart."""

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
    """A series whose id this process does not know; `learn` asks for it."""


def known_ids(kind: Kind, values: Sequence[LabelValues]) -> list[int]:
    """Give the ids of series, in the order of their labels' values, without asking the database.

    Raises:
        UnknownSeriesError: this process does not know one of them.
    """
    known = _ids.get(kind, {})
    try:
        return [known[labels] for labels in values]
    except KeyError as error:
        raise UnknownSeriesError(f"{kind.metric} of {error}") from None


def learn(kinds: Iterable[Kind], values: Set[LabelValues]) -> None:
    """Find out the ids of series, creating those that do not exist, so that `known_ids` has every one of them.

    It must not be called in a transaction that may be rolled back: the ids are remembered.
    """
    if sum(map(len, _ids.values())) > CACHE_KEYS:
        _ids.clear()
    for kind in kinds:
        known = _ids.setdefault(kind, {})
        known.update(_fetch(kind, sorted(values - known.keys())))


def forget_series() -> None:
    """Forget every id, so that the database is asked again."""
    _ids.clear()


def _fetch(kind: Kind, values: Sequence[LabelValues]) -> dict[LabelValues, int]:
    """Create what is missing, then read all; sorted, so that two workers lock in the same order."""
    metrics, labels = [kind.metric] * len(values), [_as_json(kind.label_names, labels) for labels in values]
    with connection.cursor() as cursor:
        cursor.execute(CREATE_MISSING, [metrics, labels])
        cursor.execute(FIND, [metrics, labels])
        return {values[position - 1]: id_ for position, id_ in cursor.fetchall()}


def _as_json(names: tuple[str, ...], values: LabelValues) -> str:
    return json.dumps(dict(zip(names, values, strict=True)), sort_keys=True, ensure_ascii=False)
