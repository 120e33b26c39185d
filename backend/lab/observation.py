"""One turn of an experiment: load on a running web server, and what was observed meanwhile."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.answers import Answers
from lab.generator import Load, loading
from lab.waits import Waits
from lab.watch import Watch, Watcher
from lab.web import Web
from lab.workloads import ERRORS, SLOW_STATUS
from poolhouse.servers.bounded import Cursor
from sandbox.processes import family_memory_bytes, family_processor_s
from sandbox.servers import Server


@dataclass(frozen=True)
class Observation:
    """The result of a turn."""

    answers: Answers
    watch: Watch
    processor_s: dict[str, float]
    """of the web server and of each database server"""
    memory_mib: dict[str, float]
    waits: Waits

    def as_document(self) -> dict[str, Any]:
        """Return it as JSON data."""
        answers, watch = self.answers, self.watch
        statuses = answers.statuses
        failed = {"no answer in time": answers.unanswered} if answers.unanswered else {}
        answered = statuses.total()
        return {
            "requests_per_s": round(answers.good / answers.duration_s, 1),
            "latency": answers.latency(),
            "latency_of_fast": answers.latency(200) if statuses[SLOW_STATUS] else None,
            "errors": {
                **{ERRORS.get(status, str(status)): count for status, count in statuses.items() if status >= 400},
                **failed,
            },
            "answers": answered + answers.unanswered,
            "steady": answers.is_steady,
            "connections_opened_per_s": round(watch.sessions / answers.duration_s, 1),
            "server_connections": {"max": watch.most_open, "mean": round(watch.mean_open, 1)},
            "samples": [[one.at_s, one.open, one.active, one.idle_in_transaction] for one in watch.samples],
            "processor_us_a_request": {
                who: round(s / answered * 1e6) if answered else None for who, s in self.processor_s.items()
            },
            "memory_mib": {who: round(mib, 1) for who, mib in self.memory_mib.items()},
            "wait_ms": self.waits.as_document(),
        }


@dataclass(frozen=True)
class Site:
    """A running web server and the servers behind it."""

    web: Web
    servers: tuple[Server, ...]
    """PostgreSQL, and PgBouncer if the web server connects through it"""
    watcher: Watcher
    """samples PostgreSQL"""
    console: Cursor | None
    """a cursor on PgBouncer's console"""


def observe(site: Site, path: str, how: Load, duration_s: float) -> Observation:
    """Put load on a web server for a time, and observe all servers.

    Args:
        site: the running servers.
        path: the page to request.
        how: the load.
        duration_s: the length of the measurement, after the warm-up.
    """
    pids = {"web": site.web.pids, **{server.name: (server.pid,) for server in site.servers if server.pid is not None}}
    with loading(site.web.urls(path), how) as under_way:
        under_way.warm_up()
        waits = Waits.begun(site.console)
        with site.watcher.watching() as watch:
            window = pass_window(duration_s, pids)
        memory_mib = {who: sum(map(family_memory_bytes, theirs)) / 2**20 for who, theirs in pids.items()}
        waited = waits.ended()
        answers = under_way.answers(window.begin_s, window.end_s)
    return Observation(answers, watch, window.processor_s, memory_mib, waited)


@dataclass(frozen=True)
class Window:
    """A period of measurement."""

    begin_s: float
    """since 1970"""
    end_s: float
    processor_s: dict[str, float]
    """by process group, within the period"""


def pass_window(duration_s: float, pids: Mapping[str, Sequence[int]]) -> Window:
    """Sleep, and return the processor time that processes and their children took meanwhile."""
    before_s, begin_s = _processor_s(pids), time.time()
    time.sleep(duration_s)
    after_s, end_s = _processor_s(pids), time.time()
    return Window(begin_s, end_s, {who: after_s[who] - before_s[who] for who in pids})


def _processor_s(pids: Mapping[str, Sequence[int]]) -> dict[str, float]:
    return {who: sum(map(family_processor_s, theirs)) for who, theirs in pids.items()}
