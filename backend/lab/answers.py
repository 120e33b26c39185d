"""The log of the load generator: how requests were answered, and which were still unanswered."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

FIELDS = 3
QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}

Spans = np.ndarray[tuple[int], np.dtype[np.float64]]
"""milliseconds"""
Latency = dict[str, float]
"""by mean_ms and the names of QUANTILES, in milliseconds"""


class Log:
    """h2load's record of each answered request: when it was sent, the HTTP status, and how long it took.

    A request whose connection was closed before an answer is missing, and its client sends no more requests.
    """

    def __init__(self, text: str) -> None:
        lines = [line.split("\t") for line in text.splitlines()]
        if wrong := next((line for line in lines if len(line) != FIELDS), None):
            raise ValueError(
                f"h2load's log has the line {wrong!r}; expected three fields: start in µs, status, duration in µs"
            )
        table = np.array(lines, dtype=np.int64).reshape(-1, FIELDS)
        self.sent_us, self.status, self.span_us = table.T
        self.ended_us = self.sent_us + self.span_us

    def between(self, begin_s: float, end_s: float) -> dict[int, Spans]:
        """Return the durations of the requests that were answered between two moments, by status."""
        chosen = (begin_s * 1e6 <= self.ended_us) & (self.ended_us < end_s * 1e6)
        status, span_ms = self.status[chosen], self.span_us[chosen] / 1e3
        return {int(one): span_ms[status == one] for one in np.unique(status)}

    def in_hand(self, clients: int, at_s: float) -> list[float]:
        """Return since when each client that waits at a moment has waited; -inf means since it started.

        The log names no clients, and contains a request only after it has ended. But in a closed loop a client sends
        its next request as soon as it has an answer. So each request belongs to the last answer before it that has no
        request yet, and each answer that is left over was followed by a request that has not ended.
        """
        has_ended = self.ended_us < at_s * 1e6
        answered = [(moment_us, False) for moment_us in self.ended_us[has_ended].tolist()]
        asked = [(moment_us, True) for moment_us in self.sent_us[has_ended].tolist()]
        waiting = [-math.inf] * clients
        for moment_us, is_asked in sorted(answered + asked):
            if not is_asked:
                waiting.append(moment_us / 1e6)
            elif waiting:
                waiting.pop()
        return waiting


@dataclass(frozen=True)
class Answers:
    """The answers of one measurement."""

    duration_s: float
    spans_ms: Mapping[int, Spans]
    """by HTTP status: from sending a request to the last byte of its answer"""
    unanswered: int
    """clients that had waited longer than PATIENCE_S when it ended"""
    is_steady: bool
    """True if the load had warmed up and kept its rate"""

    @property
    def good(self) -> int:
        """The number of answers without an error status."""
        return sum(len(spans) for status, spans in self.spans_ms.items() if status < 400)

    @property
    def statuses(self) -> Counter[int]:
        """The number of answers by HTTP status."""
        return Counter({status: len(spans) for status, spans in self.spans_ms.items()})

    def latency(self, *statuses: int) -> Latency | None:
        """Return percentiles of the answers with these statuses, or of all good ones; None if there are none."""
        wanted = statuses or [status for status in self.spans_ms if status < 400]
        spans = [self.spans_ms[status] for status in wanted if status in self.spans_ms]
        if not spans:
            return None
        every = np.concatenate(spans)
        ms = np.quantile(every, list(QUANTILES.values()), method="inverted_cdf")
        named = {name: round(float(value), 3) for name, value in zip(QUANTILES, ms, strict=True)}
        return {"mean_ms": round(float(every.mean()), 3), **named}
