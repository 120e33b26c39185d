"""Load on a web server by h2load: as fast as so many clients are answered, or at a rate whatever the answers take.

h2load (nghttp2's) is small beside what it loads, speaks HTTP/1.1, holds a rate, and logs every request, so percentiles
are of requests and not of buckets.
"""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen

import numpy as np

from sandbox import debian

CONNECT_PERIOD_MS = 10
SILENCE_S = 10
QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}

Latency = dict[str, float]
"""by the names of QUANTILES, in milliseconds"""


@dataclass(frozen=True)
class Closed:
    """Each of so many clients asks again when it has its answer."""

    clients: int

    def options(self, duration_s: float) -> list[str]:
        """Give h2load's options for it."""
        return [f"--clients={self.clients}", f"--duration={duration_s * 1000:.0f}ms"]


@dataclass(frozen=True)
class Constant:
    """Requests fall due at a rate.

    Latencies are true as long as a client is free when a request falls due: take enough clients.
    """

    requests_per_s: float
    clients: int

    def options(self, duration_s: float) -> list[str]:
        """Give h2load's options for it; the clients begin one after the other, so their requests do not coincide."""
        each_requests_per_s = self.requests_per_s / self.clients
        begin_together = max(1, round(self.requests_per_s * CONNECT_PERIOD_MS / 1000))
        return [
            f"--clients={self.clients}",
            f"--rate={min(begin_together, self.clients)}",
            f"--rate-period={CONNECT_PERIOD_MS}ms",
            f"--rps={each_requests_per_s:g}",
            f"--requests={round(self.requests_per_s * duration_s)}",
        ]


Load = Closed | Constant


@dataclass(frozen=True)
class Answers:
    """What came back."""

    duration_s: float
    spans_ms: Mapping[int, "np.ndarray[tuple[int], np.dtype[np.float64]]"]
    """by HTTP status: from sending a request to the last byte of its answer"""
    unanswered: int
    """requests that were cut off, refused or timed out"""

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


def load(url: str, how: Load, duration_s: float) -> Answers:
    """Ask for a time.

    Args:
        url: of the page, on this machine.
        how: closed loop or constant rate.
        duration_s: for how long requests are made.

    Raises:
        RuntimeError: h2load failed; the text has what it said.
    """
    with tempfile.TemporaryDirectory(prefix="poolhouse-load-") as folder:
        Path(folder).chmod(0o777)  # its user in there is another
        command = ["/usr/bin/h2load", "--h1", f"--connection-inactivity-timeout={SILENCE_S}", "--log-file=/data/log"]
        root = debian.cached_load_generator()
        argv = [*command, *how.options(duration_s), url]
        wrapped = root.command(argv, binds={}, data=Path(folder), die_with_parent=True)
        with Popen(wrapped, stdout=PIPE, stderr=STDOUT, text=True) as process:
            said, _ = process.communicate(timeout=duration_s + 2 * SILENCE_S)
        if process.returncode != 0:
            raise RuntimeError(f"h2load {url}: {said.strip()[-500:]}")
        return _read((Path(folder) / "log").read_text(), duration_s)


def _read(log: str, duration_s: float) -> Answers:
    """Read h2load's log: a line for each request, with its start in µs, its HTTP status or -1, and its span in µs."""
    spans_ms: dict[int, list[float]] = defaultdict(list)
    for line in log.splitlines():
        _, status, span_us = line.split("\t")
        spans_ms[int(status)].append(int(span_us) / 1000)
    unanswered = len(spans_ms.pop(-1, []))
    return Answers(duration_s, {status: np.array(spans) for status, spans in spans_ms.items()}, unanswered)
