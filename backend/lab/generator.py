"""Load on a web server by h2load: in a closed loop of clients, or at a constant rate.

h2load (of nghttp2) needs little processor time, speaks HTTP/1.1, keeps a rate, and logs every request, so percentiles
are exact.
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
"""the load ends by itself after this time"""
WARM_UP_S, WARM_UP_MOST_S, POLL_S = 0.5, 4.0, 0.1
ANSWERS_EACH = 2
"""mean answers per client in a warm closed loop: the first requests of all clients may have started at once"""
PATIENCE_S = 3.0
"""the longest wait of a client: a request that is unanswered for longer is an error"""
KEPT_SHARE = 0.95
"""of the requests that fell due: with fewer answers, the rate was not kept"""


@dataclass(frozen=True)
class Closed:
    """Each client sends its next request when it has an answer."""

    clients: int

    def shared(self, parts: int) -> list["Closed"]:
        """Return the load of each address, as even as possible; some may get none."""
        return [Closed(clients) for clients in _shares(self.clients, parts)]

    def options(self, duration_s: float) -> list[str]:
        """Return h2load's options."""
        return [f"--clients={self.clients}", f"--duration={duration_s * 1000:.0f}ms"]

    @property
    def answers_until_steady(self) -> int:
        """The number of answers after which queues and connections no longer grow."""
        return ANSWERS_EACH * self.clients

    def keeps_up(self, _: float) -> bool:
        """Return True: a client without an answer sends nothing."""
        return True

    def unanswered(self, log: Log, at_s: float) -> int:
        """Return the number of clients that had waited longer than PATIENCE_S at a moment."""
        return sum(asked_s <= at_s - PATIENCE_S for asked_s in log.in_hand(self.clients, at_s))


@dataclass(frozen=True)
class Constant:
    """Requests fall due at a constant rate.

    Latencies are correct only if a client is free when a request falls due: use enough clients.
    """

    requests_per_s: float
    clients: int

    def shared(self, parts: int) -> list["Constant"]:
        """Return the load of each address, as even as possible; some may get none."""
        each_requests_per_s = self.requests_per_s / self.clients
        return [Constant(each_requests_per_s * clients, clients) for clients in _shares(self.clients, parts)]

    def options(self, duration_s: float) -> list[str]:
        """Return h2load's options; clients start one after the other, so that their requests do not coincide."""
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
        """Zero: requests fall due from the beginning."""
        return 0

    def keeps_up(self, ended_per_s: float) -> bool:
        """Return True if as many requests ended as fell due; otherwise all clients were busy and sent requests late."""
        return ended_per_s >= KEPT_SHARE * self.requests_per_s

    def unanswered(self, _log: Log, _at_s: float) -> int:
        """Return 0: the log does not show whether a client waits or is idle for a while.

        If many clients wait, the rate is not kept.
        """
        return 0


Load = Closed | Constant


@dataclass
class Loading:
    """Load that is running."""

    how: Load
    parts: list[tuple[Load, Popen[str], Path]] = field(default_factory=list)
    """for each address: its load, its h2load process, and the log"""
    was_warm: bool = False

    def warm_up(self) -> None:
        """Wait until the load is steady, at most WARM_UP_MOST_S."""
        time.sleep(WARM_UP_S)
        deadline = time.monotonic() + WARM_UP_MOST_S - WARM_UP_S
        while not self._is_warm() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        self.was_warm = self._is_warm()

    def _is_warm(self) -> bool:
        answers = sum(log.read_bytes().count(b"\n") for _, _, log in self.parts if log.exists())
        return answers >= self.how.answers_until_steady

    def answers(self, begin_s: float, end_s: float) -> Answers:
        """Stop the load, and return the answers between two moments, in seconds since 1970.

        An answer counts even if its request was sent before, as in a system that is always busy.

        Raises:
            RuntimeError: h2load failed; the text contains its output.
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
            raise RuntimeError(f"h2load failed: {process.communicate()[0].strip()[-500:]}")
        process.kill()  # it writes each line as the request ends, so nothing is lost
        process.communicate()
        return Log(path.read_text() if path.exists() else "")


@contextmanager
def loading(urls: Sequence[str], how: Load) -> Iterator[Loading]:
    """Put load on a page for the length of a block.

    Args:
        urls: the addresses of the page on this machine; each gets the same share of the clients.
        how: closed loop or constant rate.
    """
    with tempfile.TemporaryDirectory(prefix="poolhouse-load-") as folder, ExitStack() as started:
        data = Path(folder)
        data.chmod(0o777)  # h2load runs as another user
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
