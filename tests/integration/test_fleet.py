"""The reports of a large fleet, read and merged while a caller waits for the answer."""

import random
import time
from collections.abc import Iterator

import pytest

from config.env import Queue, read
from poolhouse.measures.histogram import Histogram
from poolhouse.measures.meter import COUNTERS
from poolhouse.process.pools import PoolState
from poolhouse.reports.report import ProcessReport
from poolhouse.reports.store import ReportStore
from sandbox.servers import Place
from tests.conftest import DEADLINE_S

PROCESSES = 1000


@pytest.fixture
def store(servers: Place) -> Iterator[ReportStore]:
    made = ReportStore(read(Queue).url, prefix=f"fleet-{time.monotonic_ns()}", ttl_s=3600, timeout_s=DEADLINE_S)
    yield made
    made.close()


def durations(chance: random.Random) -> Histogram:
    made = Histogram()
    for _ in range(500):
        made.record(chance.lognormvariate(-6, 1.5))
    return made


def test_the_reports_of_a_thousand_processes_are_merged(store: ReportStore) -> None:
    chance = random.Random(1)
    seen = [durations(chance) for _ in range(20)]
    for number in range(PROCESSES):
        wait, hold, connect = chance.choices(seen, k=3)
        counts = dict.fromkeys(COUNTERS, 7)
        state = PoolState("default", "engine", "queuepool", 5, 10, 3, 2, 0, 1, counts, wait, hold, connect)
        store.publish(ProcessReport(f"web@box:{number}", "web", "box", number, 1.0, 2.0, (state,)))
    pools = [pool for report in store.read_all().live for pool in report.pools]
    waits = Histogram.merged(pool.wait for pool in pools if pool.wait)
    holds = Histogram.merged(pool.hold for pool in pools if pool.hold)
    assert len(pools) == PROCESSES
    assert waits.count == holds.count == PROCESSES * 500
    assert sum(pool.in_use for pool in pools) == 3 * PROCESSES
