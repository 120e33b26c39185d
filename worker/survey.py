"""Dividing a batch that touches more chunks than one transaction may, by time; nothing here queries a server."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

EARLIEST_US, LATEST_US = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Portion:
    """A time range with few enough chunks for one transaction."""

    begin_us: int
    end_us: int
    """exclusive"""
    row_count: int

    def holds(self, times_us: np.ndarray) -> np.ndarray:
        """Return a mask of the times that are in the range."""
        return (times_us >= self.begin_us) & (times_us < self.end_us)


def portions(rows_by_chunk: Mapping[int, int], begin_us: int, chunk_limit: int) -> list[Portion]:
    """Group consecutive chunks into portions without gaps between them; the last one has no end.

    Args:
        rows_by_chunk: the number of rows by the begin of their chunk.
        begin_us: the begin of the first portion.
        chunk_limit: the maximum number of chunks per portion.
    """
    chunks = sorted(rows_by_chunk)
    firsts = range(0, max(1, len(chunks)), chunk_limit)
    begins = [begin_us, *(chunks[first] for first in firsts[1:]), LATEST_US]
    return [
        Portion(begin, end, sum(rows_by_chunk[chunk] for chunk in chunks[first : first + chunk_limit]))
        for first, (begin, end) in zip(firsts, pairwise(begins), strict=True)
    ]


def windows(found: Sequence[Portion], row_limit: int) -> Iterator[list[Portion]]:
    """Group consecutive portions that fit into memory together; a portion that is too large is a group of its own."""
    window: list[Portion] = []
    for portion in found:
        if window and sum(each.row_count for each in (*window, portion)) > row_limit:
            yield window
            window = []
        window.append(portion)
    yield window


def span_of(window: Sequence[Portion]) -> Portion:
    """Return consecutive portions as one."""
    return Portion(window[0].begin_us, window[-1].end_us, sum(portion.row_count for portion in window))
