"""The death of any part at any moment: each job ends with exact counts, and no reading twice."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from config.env import CHECKOUT, Database, Monitor, Queue, Servers, read
from sandbox.isolation import connect, free_ports
from sandbox.servers import Place, Server, broker, timescale
from telemetry.generate import Fleet, write
from tests import forked
from tests.conftest import DEADLINE_S, await_that

ROWS = 400_000
BATCHES = 40
JOB_TIMEOUT_S = 10 * DEADLINE_S
COLUMNS = ("--time", "time", "--labels", "device", "--values", "value")


class System:
    """Servers and a worker of this test's own, any of which may be ended."""

    def __init__(self, place: Place, folder: Path, data: Path | None = None) -> None:
        """Take the data of servers that were stopped, or make them anew."""
        db_port, redis_port = free_ports(2)
        self.database = read(Database).model_copy(update={"db_port": db_port})
        queue = read(Queue).model_copy(update={"redis_port": redis_port})
        own = Place(place.root, folder / "servers", die_with_parent=True)
        if data:
            shutil.copytree(data, own.data)
        else:
            own.data.mkdir()
        self.timescale: Server = timescale(own, self.database, read(Monitor), read(Servers))
        self.redis: Server = broker(own, queue)
        self.broker = redis.Redis.from_url(queue.url)
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "POOLHOUSE_STACK": str(folder),
            "DB_PORT": str(db_port),
            "CELERY_BROKER_URL": queue.url,
            # Twenty kills may well hit one batch more often than the few failures after which it would be parked.
            "INGEST_MAX_ATTEMPTS": "50",
            "INGEST_RESEND_AFTER_S": "2",
            "POOLHOUSE_PUBLISH_INTERVAL_S": "1",
            "POOLHOUSE_REPORT_TTL_S": "5",
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the servers, the worker and beat."""
        self.timescale.start()
        self.redis.start()
        for service in ("worker", "beat"):
            self.start_service(service)
        await_that(lambda: " ready." in (self.folder / "worker.log").read_text(), "a worker that is ready")

    def start_service(self, name: str) -> None:
        """Start what the Procfile has under a name."""
        lines = (CHECKOUT / "Procfile").read_text().splitlines()
        (command,) = (line.partition(":")[2] for line in lines if line.startswith(f"{name}:"))
        with (self.folder / f"{name}.log").open("a") as log:
            arguments: dict[str, Any] = {"cwd": CHECKOUT, "env": self.environment, "stdout": log, "stderr": log}
            self.processes.append(subprocess.Popen(command, shell=True, start_new_session=True, **arguments))

    def stop(self) -> None:
        """End all of it."""
        for process in self.processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.broker.close()
        self.redis.stop()
        self.timescale.stop()

    def manage(self, *arguments: str) -> str:
        """Run a management command, which must succeed."""
        answer = forked.manage(*arguments, env=self.environment)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        connection = connect(self.database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                rows: list[tuple[Any, ...]] = cursor.fetchall()
                return rows
        finally:
            connection.close()

    def enqueue(self, csv: Path) -> int:
        """Enqueue a file; give the job's number."""
        out = self.manage("enqueue_ingest", str(csv), *COLUMNS, "--batch-rows", str(ROWS // BATCHES))
        return int(out.split()[1].rstrip(":"))

    def loading_pids(self) -> list[int]:
        """The worker's processes that are in the midst of a COPY."""
        rows = self.query(
            "SELECT application_name FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY reading%'"
        )
        return [int(name.rpartition(":")[2]) for (name,) in rows]

    def done_batches(self) -> int:
        """How many batches are loaded."""
        ((count,),) = self.query("SELECT count(*) FROM ingest_batch WHERE state = 'done'")
        return int(count)

    def assert_ends_exactly(self, *jobs: int, readings: int = ROWS) -> None:
        """Wait for jobs to end, and hold their counts and the table against what was enqueued."""
        deadline = time.monotonic() + JOB_TIMEOUT_S
        while True:
            states = {job: json.loads(self.manage("ingest_status", str(job), "--json")) for job in jobs}
            if all(state["state"] == "done" for state in states.values()):
                break
            assert time.monotonic() < deadline, states
            time.sleep(0.2)
        assert sum(state["inserted"] for state in states.values()) == readings
        for state in states.values():
            assert state["inserted"] + state["skipped"] == state["rows"] == ROWS
            assert (state["rejected"], state["empty"], state["updated"]) == (0, 0, 0)
        assert self.query("SELECT count(*), count(DISTINCT (series_id, time)) FROM reading") == [(readings, readings)]


class Gate:
    """A lock on the table of readings: while it is shut, no job ends, however long the test takes to do its harm."""

    def __init__(self, system: System) -> None:
        self._connection = connect(system.database)
        self.shut()

    def open(self) -> None:
        """Let those who wait for the lock go on."""
        self._connection.rollback()

    def shut(self) -> None:
        """Wait until those that are being loaded are, and let no more begin."""
        with self._connection.cursor() as cursor:
            cursor.execute("LOCK TABLE reading IN SHARE MODE")

    def let_some_through(self) -> None:
        """Open it for those who wait at it now, if any."""
        self.open()
        self.shut()

    def close(self) -> None:
        """Take it away."""
        self._connection.close()


@pytest.fixture(scope="module")
def data(servers: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of servers that have the schema: making them takes longer than most tests, and a copy a moment."""
    made = System(servers, tmp_path_factory.mktemp("data"))
    try:
        made.timescale.start()
        made.manage("migrate", "--verbosity", "0")
    finally:
        made.stop()
    return made.folder / "servers"


@pytest.fixture
def system(servers: Place, tmp_path: Path, data: Path) -> Iterator[System]:
    made = System(servers, tmp_path, data)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    path = tmp_path_factory.mktemp("chaos") / "readings.csv"
    assert sum(write(Fleet(1000, 60_000_000, begin, begin + timedelta(minutes=ROWS // 1000), seed=3), path)) == ROWS
    return path


@pytest.fixture
def gate(system: System) -> Iterator[Gate]:
    made = Gate(system)
    yield made
    made.close()


def enqueue_and_load_some(system: System, gate: Gate, csv: Path) -> int:
    """Enqueue a file, and let the worker load a few of its batches; give the job's number."""
    job = system.enqueue(csv)

    def some_are_loaded() -> bool:
        gate.let_some_through()
        return system.done_batches() >= 3

    await_that(some_are_loaded, timeout_s=JOB_TIMEOUT_S)
    return job


def test_a_worker_process_killed_in_mid_copy_twenty_times_in_one_job(system: System, gate: Gate, csv: Path) -> None:
    job = system.enqueue(csv)
    chance = random.Random(20)
    killed: set[int] = set()

    def loading() -> list[int]:
        # The server takes a moment to close the connection of one that was killed.
        return sorted(set(system.loading_pids()) - killed)

    for number in range(20):
        victim = chance.choice(await_that(loading, timeout_s=JOB_TIMEOUT_S))
        if is_beyond_the_gate := number % 2 == 1:
            gate.open()
            time.sleep(chance.uniform(0, 0.03))  # anywhere in the COPY, or just behind it
        os.kill(victim, signal.SIGKILL)
        killed.add(victim)
        if is_beyond_the_gate:
            gate.shut()
    gate.close()
    system.assert_ends_exactly(job)
    ((attempts,),) = system.query("SELECT sum(attempts) FROM ingest_batch")
    assert attempts >= BATCHES + 10, "those that were killed at the gate had begun"


def test_the_whole_worker_killed_and_started_again(system: System, gate: Gate, csv: Path) -> None:
    job = system.enqueue(csv)
    await_that(system.loading_pids)
    os.killpg(system.processes[0].pid, signal.SIGKILL)
    gate.close()
    system.start_service("worker")
    system.assert_ends_exactly(job)


def test_the_database_server_crashes_and_comes_back(system: System, gate: Gate, csv: Path) -> None:
    job = enqueue_and_load_some(system, gate, csv)
    postmaster = system.timescale.pid
    assert postmaster
    os.kill(postmaster, signal.SIGQUIT)  # immediate: what pg_ctl restart -m immediate sends
    await_that(lambda: system.timescale.pid is None)
    system.timescale.start()
    system.assert_ends_exactly(job)


def test_the_broker_forgets_everything(system: System, gate: Gate, csv: Path) -> None:
    job = enqueue_and_load_some(system, gate, csv)
    system.broker.flushall()
    assert system.done_batches() < BATCHES, "there must be something left to lose"
    gate.close()
    system.assert_ends_exactly(job)


def test_the_broker_is_away_for_ten_seconds(system: System, gate: Gate, csv: Path) -> None:
    job = enqueue_and_load_some(system, gate, csv)
    system.redis.stop()
    gate.close()
    time.sleep(10)  # the outage itself
    system.redis.start()
    system.assert_ends_exactly(job)


def test_every_batch_is_delivered_twice_at_once(system: System, gate: Gate, csv: Path) -> None:
    job = system.enqueue(csv)
    await_that(system.loading_pids)  # no further message is taken from the queue, whose batches wait at the gate
    await_that(lambda: system.query("SELECT count(*) FROM ingest_batch WHERE sent_at IS NULL") == [(0,)])
    messages = await_that(lambda: system.broker.lrange("ingest", 0, -1))
    system.broker.rpush("ingest", *messages)
    gate.close()
    system.assert_ends_exactly(job)


def test_the_same_file_is_enqueued_twice_at_once(system: System, csv: Path) -> None:
    jobs: list[int] = []
    both = [threading.Thread(target=lambda: jobs.append(system.enqueue(csv))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    system.assert_ends_exactly(*jobs)
