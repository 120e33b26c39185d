"""Load on a web server by h2load: as fast as so many clients are answered, or at a rate whatever the answers take.

h2load (nghttp2's) is small beside what it loads, speaks HTTP/1.1, holds a rate, and logs every request, so percentiles
are of requests and not of buckets.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen

import numpy as np

from lab.answers import Answers, Log, Spans
from sandbox import debian

CONNECT_PERIOD_MS = 10
SLACK_S = 5
"""for which load goes on if nobody stops it"""
KEPT_SHARE = 0.95
"""of a rate: asked for less, it was another"""


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

    def rate_kept(self, _: float) -> None:
        """Say nothing: no rate was asked for."""

    def unanswered(self, log: Log, begin_s: float, end_s: float) -> int:
        """Count the clients that waited for one answer all the time between two moments, in seconds since 1970."""
        return sum(asked_s <= begin_s for asked_s in log.in_hand(self.clients, end_s))


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
        period_ms = max(CONNECT_PERIOD_MS, round(1000 / self.requests_per_s))
        begin_together = max(1, round(self.requests_per_s * period_ms / 1000))
        return [
            f"--clients={self.clients}",
            f"--rate={min(begin_together, self.clients)}",
            f"--rate-period={period_ms}ms",
            f"--rps={each_requests_per_s:g}",
            f"--requests={round(self.requests_per_s * duration_s)}",
        ]

    def rate_kept(self, ended_per_s: float) -> bool:
        """Say whether as many requests ended as fell due: if not, all clients were busy, and asked later."""
        return ended_per_s >= KEPT_SHARE * self.requests_per_s

    def unanswered(self, log: Log, begin_s: float, end_s: float) -> int:
        """Give none: who waits too long cannot ask at the rate, which shows in `Answers.rate_kept`."""
        return 0


Load = Closed | Constant


@dataclass
class Loading:
    """Load that is under way."""

    how: Load
    parts: list[tuple[Load, Popen[str], Path]] = field(default_factory=list)
    """each address's share, the h2load that asks, and its log"""

    def answers(self, begin_s: float, end_s: float) -> Answers:
        """Stop asking, and give what was answered between two moments, in seconds since 1970.

        What was asked before and is answered between them counts, as it does in a system that is always busy.

        Raises:
            RuntimeError: h2load failed; the text has what it said.
        """
        logs = [(share, self._log(process, path)) for share, process, path in self.parts]
        spans_ms: dict[int, list[Spans]] = defaultdict(list)
        for _, log in logs:
            for status, spans in log.between(begin_s, end_s).items():
                spans_ms[status].append(spans)
        cut_off = sum(log.cut_off(begin_s, end_s) for _, log in logs)
        unanswered = sum(share.unanswered(log, begin_s, end_s) for share, log in logs)
        joined: dict[int, Spans] = {status: np.concatenate(spans) for status, spans in spans_ms.items()}
        ended, duration_s = cut_off + sum(map(len, joined.values())), end_s - begin_s
        return Answers(duration_s, joined, cut_off, unanswered, self.how.rate_kept(ended / duration_s))

    def _log(self, process: Popen[str], path: Path) -> Log:
        if process.poll() not in (None, 0):
            raise RuntimeError(f"h2load: {process.communicate()[0].strip()[-500:]}")
        process.kill()  # it writes each line as the request ends, so nothing is lost
        process.communicate()
        return Log(path.read_text() if path.exists() else "")


@contextmanager
def loading(urls: Sequence[str], how: Load, longest_s: float) -> Iterator[Loading]:
    """Ask for the length of a block.

    Args:
        urls: of the page on this machine; where there are several, each gets the same share of the clients.
        how: closed loop or constant rate.
        longest_s: after which asking ends by itself.
    """
    with tempfile.TemporaryDirectory(prefix="poolhouse-load-") as folder, ExitStack() as started:
        data = Path(folder)
        data.chmod(0o777)  # its user in there is another
        under_way = Loading(how)
        shares: list[Load] = [*how.shared(len(urls))]
        for number, (url, share) in enumerate(zip(urls, shares, strict=True)):
            if share.clients == 0:
                continue
            name = f"log-{number}"
            process = started.enter_context(_ask(url, share, longest_s, data, name))
            started.callback(process.kill)
            under_way.parts.append((share, process, data / name))
        yield under_way


def load(urls: Sequence[str], how: Load, duration_s: float, warm_up_s: float = 0.1) -> Answers:
    """Ask for a time, and count what is answered in it after the warm-up.

    Raises:
        RuntimeError: h2load failed; the text has what it said.
    """
    with loading(urls, how, warm_up_s + duration_s + SLACK_S) as under_way:
        time.sleep(warm_up_s)
        begin_s = time.time()
        time.sleep(duration_s)
        return under_way.answers(begin_s, time.time())


def _ask(url: str, how: Load, duration_s: float, data: Path, log: str) -> Popen[str]:
    argv = ["/usr/bin/h2load", "--h1", f"--log-file=/data/{log}", *how.options(duration_s), url]
    wrapped = debian.cached_load_generator().command(argv, binds={}, data=data, die_with_parent=True)
    return Popen(wrapped, stdout=PIPE, stderr=STDOUT, text=True)


def _shares(whole: int, parts: int) -> list[int]:
    return [whole // parts + (number < whole % parts) for number in range(parts)]
