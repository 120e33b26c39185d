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
LONGEST_S = 60
"""after which load ends by itself"""
WARM_UP_S, WARM_UP_MOST_S, POLL_S = 0.5, 4.0, 0.1
ANSWERS_EACH = 2
"""that a client has had in the mean when a closed loop is warm: its first may have been all clients' at once"""
PATIENCE_S = 3.0
"""for which a client waits: a request without an answer for longer is an error"""
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

    @property
    def answers_until_steady(self) -> int:
        """How many answers there are before queues and connections are as they stay."""
        return ANSWERS_EACH * self.clients

    def keeps_up(self, _: float) -> bool:
        """Say yes: who is not answered does not ask."""
        return True

    def unanswered(self, log: Log, at_s: float) -> int:
        """Count the clients that have waited for too long at a moment, by their log."""
        return sum(asked_s <= at_s - PATIENCE_S for asked_s in log.in_hand(self.clients, at_s))


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

    @property
    def answers_until_steady(self) -> int:
        """None: requests fall due from the beginning."""
        return 0

    def keeps_up(self, ended_per_s: float) -> bool:
        """Say whether as many requests ended as fell due: if not, all clients were busy, and asked later."""
        return ended_per_s >= KEPT_SHARE * self.requests_per_s

    def unanswered(self, _log: Log, _at_s: float) -> int:
        """Count none: a client may have nothing to ask for a while, and the log does not tell it from one that waits.

        Where many wait, the rate is not kept.
        """
        return 0


Load = Closed | Constant


@dataclass
class Loading:
    """Load that is under way."""

    how: Load
    parts: list[tuple[Load, Popen[str], Path]] = field(default_factory=list)
    """each address's share, the h2load that asks, and its log"""
    was_warm: bool = False

    def warm_up(self) -> None:
        """Wait until queues and connections are as they stay, or for as long as is reasonable."""
        time.sleep(WARM_UP_S)
        deadline = time.monotonic() + WARM_UP_MOST_S - WARM_UP_S
        while not self._is_warm() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        self.was_warm = self._is_warm()

    def _is_warm(self) -> bool:
        answers = sum(log.read_bytes().count(b"\n") for _, _, log in self.parts if log.exists())
        return answers >= self.how.answers_until_steady

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
        joined: dict[int, Spans] = {status: np.concatenate(spans) for status, spans in spans_ms.items()}
        is_steady = self.was_warm and self.how.keeps_up(sum(map(len, joined.values())) / (end_s - begin_s))
        unanswered = sum(share.unanswered(log, end_s) for share, log in logs)
        return Answers(end_s - begin_s, joined, unanswered, is_steady)

    def _log(self, process: Popen[str], path: Path) -> Log:
        if process.poll() not in (None, 0):
            raise RuntimeError(f"h2load: {process.communicate()[0].strip()[-500:]}")
        process.kill()  # it writes each line as the request ends, so nothing is lost
        process.communicate()
        return Log(path.read_text() if path.exists() else "")


@contextmanager
def loading(urls: Sequence[str], how: Load) -> Iterator[Loading]:
    """Ask for the length of a block.

    Args:
        urls: of the page on this machine; where there are several, each gets the same share of the clients.
        how: closed loop or constant rate.
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
            process = started.enter_context(_ask(url, share, data, name))
            started.callback(process.kill)
            under_way.parts.append((share, process, data / name))
        yield under_way


def _ask(url: str, how: Load, data: Path, log: str) -> Popen[str]:
    argv = ["/usr/bin/h2load", "--h1", f"--log-file=/data/{log}", *how.options(LONGEST_S), url]
    wrapped = debian.cached_load_generator().command(argv, binds={}, data=data, die_with_parent=True)
    return Popen(wrapped, stdout=PIPE, stderr=STDOUT, text=True)


def _shares(whole: int, parts: int) -> list[int]:
    return [whole // parts + (number < whole % parts) for number in range(parts)]
