"""One turn of an experiment: load on a web that runs, and what everybody did meanwhile."""

from dataclasses import dataclass
from typing import Any

from lab.generator import Answers, Closed, Load, load
from lab.waits import Waits
from lab.watch import Watch, Watcher
from lab.web import Web
from lab.workloads import ERRORS, SLOW_STATUS
from sandbox.processes import family_memory_bytes, family_processor_s
from sandbox.servers import Server

SETTLE_S = 0.5


@dataclass(frozen=True)
class Observation:
    """What was asked, answered and seen."""

    answers: Answers
    watch: Watch
    processor_s: dict[str, float]
    """by web and server"""
    memory_mib: dict[str, float]
    waits: Waits

    def as_document(self) -> dict[str, Any]:
        """Give it as JSON data."""
        answers, watch = self.answers, self.watch
        statuses = answers.statuses
        good = max(1, answers.good)
        return {
            "requests_per_s": round(answers.good / answers.duration_s, 1),
            "latency": answers.latency(),
            "latency_of_fast": answers.latency(200) if statuses[SLOW_STATUS] else None,
            "errors": {
                **{ERRORS.get(status, str(status)): count for status, count in statuses.items() if status >= 400},
                **({"no answer": answers.unanswered} if answers.unanswered else {}),
            },
            "answers": statuses.total() + answers.unanswered,
            "connections_opened_per_s": round(watch.sessions / answers.duration_s, 1),
            "server_connections": {"max": watch.most_open, "mean": round(watch.mean_open, 1)},
            "samples": [[one.at_s, one.open, one.active, one.idle_in_transaction] for one in watch.samples],
            "processor_us_a_request": {who: round(s / good * 1e6) for who, s in self.processor_s.items()},
            "memory_mib": {who: round(mib, 1) for who, mib in self.memory_mib.items()},
            "wait_ms": self.waits.as_document(),
        }


@dataclass(frozen=True)
class Site:
    """What is observed: a web that runs, and what stands behind it."""

    web: Web
    servers: tuple[Server, ...]
    """PostgreSQL, and PgBouncer if the web goes through it"""
    watcher: Watcher
    """of PostgreSQL"""


def observe(site: Site, path: str, how: Load, duration_s: float) -> Observation:
    """Load a web for a time and watch everything.

    Args:
        site: what runs.
        path: of the page to ask for.
        how: the load.
        duration_s: how long.
    """
    pids = {"web": site.web.pids, **{server.name: (server.pid,) for server in site.servers if server.pid is not None}}
    waits = Waits.begun(through_pgbouncer="pgbouncer" in pids)
    begun_s = {who: sum(map(family_processor_s, theirs)) for who, theirs in pids.items()}
    with site.watcher.watching() as watch:
        answers = load(site.web.urls(path), how, duration_s)
    processor_s = {who: sum(map(family_processor_s, theirs)) - begun_s[who] for who, theirs in pids.items()}
    memory_mib = {who: sum(map(family_memory_bytes, theirs)) / 2**20 for who, theirs in pids.items()}
    return Observation(answers, watch, processor_s, memory_mib, waits.ended())


def settle(web: Web, path: str, clients: int) -> None:
    """Ask for a moment without counting, so that processes, threads and connections are there."""
    load(web.urls(path), Closed(clients), SETTLE_S)
