"""Load on a web server by h2load: as fast as so many clients are answered, or at a rate whatever the answers take.

h2load (nghttp2's) is small beside what it loads, speaks HTTP/1.1, holds a rate, and logs every request, so percentiles
are of requests and not of buckets.
"""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
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

    def shared(self, parts: int) -> list["Closed"]:
        """Give each of so many addresses its share, as even as can be; some may get none."""
        return [Closed(clients) for clients in _shares(self.clients, parts)]

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

    def shared(self, parts: int) -> list["Constant"]:
        """Give each of so many addresses its share, as even as can be; some may get none."""
        each_requests_per_s = self.requests_per_s / self.clients
        return [Constant(each_requests_per_s * clients, clients) for clients in _shares(self.clients, parts)]

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


def load(urls: Sequence[str], how: Load, duration_s: float) -> Answers:
    """Ask for a time.

    Args:
        urls: of the page on this machine; where there are several, each gets the same share of the clients.
        how: closed loop or constant rate.
        duration_s: for how long requests are made.

    Raises:
        RuntimeError: h2load failed; the text has what it said.
    """
    shares: list[Load] = [*how.shared(len(urls))]
    with tempfile.TemporaryDirectory(prefix="poolhouse-load-") as folder, ExitStack() as started:
        data = Path(folder)
        data.chmod(0o777)  # its user in there is another
        asking = []
        for number, (url, share) in enumerate(zip(urls, shares, strict=True)):
            if share.clients == 0:
                continue
            process = started.enter_context(_ask(url, share, duration_s, data, f"log-{number}"))
            started.callback(process.kill)  # where one fails, the others need not go on
            asking.append((url, process))
        for url, process in asking:
            said, _ = process.communicate(timeout=duration_s + 2 * SILENCE_S)
            if process.returncode != 0:
                raise RuntimeError(f"h2load {url}: {said.strip()[-500:]}")
        return _read("".join(log.read_text() for log in data.iterdir()), duration_s)


def _ask(url: str, how: Load, duration_s: float, data: Path, log: str) -> Popen[str]:
    command = ["/usr/bin/h2load", "--h1", f"--connection-inactivity-timeout={SILENCE_S}", f"--log-file=/data/{log}"]
    argv = [*command, *how.options(duration_s), url]
    wrapped = debian.cached_load_generator().command(argv, binds={}, data=data, die_with_parent=True)
    return Popen(wrapped, stdout=PIPE, stderr=STDOUT, text=True)


def _shares(whole: int, parts: int) -> list[int]:
    return [whole // parts + (number < whole % parts) for number in range(parts)]


def _read(log: str, duration_s: float) -> Answers:
    """Read h2load's log: a line for each request, with its start in µs, its HTTP status or -1, and its span in µs."""
    spans_ms: dict[int, list[float]] = defaultdict(list)
    for line in log.splitlines():
        _, status, span_us = line.split("\t")
        spans_ms[int(status)].append(int(span_us) / 1000)
    unanswered = len(spans_ms.pop(-1, []))
    return Answers(duration_s, {status: np.array(spans) for status, spans in spans_ms.items()}, unanswered)
