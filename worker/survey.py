"""How a batch that touches more chunks than one transaction may is divided by time; nothing here asks a server."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

EARLIEST_US, LATEST_US = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Portion:
    """A span of time whose chunks fit into one transaction."""

    begin_us: int
    end_us: int
    """exclusive"""
    row_count: int

    def holds(self, times_us: np.ndarray) -> np.ndarray:
        """Return for each time whether it is in the span."""
        return (times_us >= self.begin_us) & (times_us < self.end_us)


def portions(rows_by_chunk: Mapping[int, int], begin_us: int, chunk_limit: int) -> list[Portion]:
    """Gather neighbouring chunks to portions that follow each other without a gap, to the end of time.

    Args:
        rows_by_chunk: rows, by the begin of the chunk that they are in.
        begin_us: of the first portion.
        chunk_limit: chunks in a portion, at most.
    """
    chunks = sorted(rows_by_chunk)
    firsts = range(0, max(1, len(chunks)), chunk_limit)
    begins = [begin_us, *(chunks[first] for first in firsts[1:]), LATEST_US]
    return [
        Portion(begin, end, sum(rows_by_chunk[chunk] for chunk in chunks[first : first + chunk_limit]))
        for first, (begin, end) in zip(firsts, pairwise(begins), strict=True)
    ]


def windows(found: Sequence[Portion], row_limit: int) -> Iterator[list[Portion]]:
    """Gather neighbouring portions that can be held in memory together; one that is too large is alone."""
    window: list[Portion] = []
    for portion in found:
        if window and sum(each.row_count for each in (*window, portion)) > row_limit:
            yield window
            window = []
        window.append(portion)
    yield window


def span_of(window: Sequence[Portion]) -> Portion:
    """Return neighbouring portions as one."""
    return Portion(window[0].begin_us, window[-1].end_us, sum(portion.row_count for portion in window))
