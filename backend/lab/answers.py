"""What a load generator's log says: which requests were answered how, and which are still in hand."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

CUT_OFF = -1
"""the status of a request that got no answer"""
FIELDS = 3
CLOCKS_DIFFER_S = 0.001
"""h2load takes a start and a span from different clocks"""
QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}

Spans = np.ndarray[tuple[int], np.dtype[np.float64]]
"""milliseconds"""
Latency = dict[str, float]
"""by the names of QUANTILES, in milliseconds"""


class Log:
    """What h2load wrote of each request: when it was sent, its HTTP status or -1, and how long its answer took."""

    def __init__(self, text: str) -> None:
        lines = [line.split("\t") for line in text.splitlines()]
        if wrong := next((line for line in lines if len(line) != FIELDS), None):
            raise ValueError(f"h2load's log has the line {wrong!r}; expected start in µs, status, span in µs")
        table = np.array(lines, dtype=np.int64).reshape(-1, FIELDS)
        self.sent_s, self.status, self.span_ms = table[:, 0] / 1e6, table[:, 1], table[:, 2] / 1e3
        self.ended_s = self.sent_s + self.span_ms / 1e3

    def between(self, begin_s: float, end_s: float) -> dict[int, Spans]:
        """Give the spans of the requests that were answered between two moments, by status."""
        chosen = self._ended_between(begin_s, end_s) & (self.status != CUT_OFF)
        status, span_ms = self.status[chosen], self.span_ms[chosen]
        return {int(one): span_ms[status == one] for one in np.unique(status)}

    def cut_off(self, begin_s: float, end_s: float) -> int:
        """Count the requests whose connection was closed or refused instead of an answer."""
        return int(np.sum(self._ended_between(begin_s, end_s) & (self.status == CUT_OFF)))

    def _ended_between(self, begin_s: float, end_s: float) -> np.ndarray[tuple[int], np.dtype[np.bool]]:
        return (begin_s <= self.ended_s) & (self.ended_s < end_s)

    def in_hand(self, clients: int, at_s: float) -> list[float]:
        """Say since when each client has waited that waits at a moment; -inf: since it began.

        The log names no clients, and has a request only when it has ended. But in a closed loop a client asks again
        as soon as it is answered: so each request belongs to the last answer before it that has no request yet, and
        the answers that are left over are followed by requests that have not ended.
        """
        has_ended = self.ended_s < at_s
        answered = [(moment_s, False) for moment_s in (self.ended_s[has_ended] - CLOCKS_DIFFER_S).tolist()]
        asked = [(moment_s, True) for moment_s in self.sent_s[has_ended].tolist()]
        waiting = [-math.inf] * clients
        for moment_s, is_asked in sorted(answered + asked):
            if not is_asked:
                waiting.append(moment_s)
            elif waiting:
                waiting.pop()
        return waiting


@dataclass(frozen=True)
class Answers:
    """What came back in a time."""

    duration_s: float
    spans_ms: Mapping[int, Spans]
    """by HTTP status: from sending a request to the last byte of its answer"""
    cut_off: int
    """requests whose connection was closed or refused instead of an answer"""
    unanswered: int
    """requests that were sent before that time and had no answer at its end"""
    rate_kept: bool | None
    """whether a constant rate was asked for indeed; None: a closed loop"""

    @property
    def good(self) -> int:
        """How many were answered as the view meant to."""
        return sum(len(spans) for status, spans in self.spans_ms.items() if status < 400)

    @property
    def statuses(self) -> Counter[int]:
        """How many answers had each status."""
        return Counter({status: len(spans) for status, spans in self.spans_ms.items()})

    def latency(self, *statuses: int) -> Latency | None:
        """Give percentiles of the answers with these statuses, or of all good ones; None where there are none."""
        wanted = statuses or [status for status in self.spans_ms if status < 400]
        spans = [self.spans_ms[status] for status in wanted if status in self.spans_ms]
        if not spans:
            return None
        ms = np.quantile(np.concatenate(spans), list(QUANTILES.values()), method="inverted_cdf")
        return {name: round(float(value), 3) for name, value in zip(QUANTILES, ms, strict=True)}
