"""The connections on the database server while an experiment runs, sampled ten times a second."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import psycopg2

from config.env import Database, Monitor
from sandbox.servers import HOST

INTERVAL_S = 0.1

# The watcher connects as another role, so it does not count itself.
QUESTION = """
SELECT count(*), count(*) FILTER (WHERE state = 'active'), count(*) FILTER (WHERE state LIKE 'idle in transaction%%')
FROM pg_stat_activity WHERE usename = %s AND backend_type = 'client backend'
"""


@dataclass(frozen=True)
class Sample:
    """The application's connections on the server at a moment."""

    at_s: float
    """seconds since the start of the block"""
    open: int
    active: int
    idle_in_transaction: int


@dataclass
class Watch:
    """The samples, and the difference of the server's own counters."""

    samples: list[Sample] = field(default_factory=list)
    sessions: int = 0
    """connections that were opened meanwhile"""

    @property
    def most_open(self) -> int:
        """The largest number of connections in a sample."""
        return max((sample.open for sample in self.samples), default=0)

    @property
    def mean_open(self) -> float:
        """The mean number of connections."""
        return sum(sample.open for sample in self.samples) / max(1, len(self.samples))


class Watcher:
    """One connection to the server, opened before the measurement: an exhausted server would refuse it.

    Even a refused client takes a slot for a moment, reserved slots included.
    """

    def __init__(self, connection: "psycopg2.extensions.connection", role: str) -> None:
        self._connection, self._role = connection, role

    @classmethod
    @contextmanager
    def connected(cls, database: Database, monitor: Monitor) -> Iterator["Watcher"]:
        """Connect as the monitor, for the length of a block."""
        connection = psycopg2.connect(
            host=HOST,
            port=database.db_port,
            user=monitor.db_monitor_user,
            password=monitor.db_monitor_pass.get_secret_value(),
            dbname=database.db_name,
        )
        connection.autocommit = True
        with closing(connection):
            yield cls(connection, database.db_user)

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        """Sample for the length of a block."""
        watch, end = Watch(), threading.Event()
        sessions = self._sessions()
        thread = threading.Thread(target=self._watch, args=(watch, end), daemon=True)
        thread.start()
        try:
            yield watch
        finally:
            end.set()
            thread.join()
            watch.sessions = self._sessions() - sessions

    def _watch(self, watch: Watch, end: threading.Event) -> None:
        begun_at = time.monotonic()
        with self._connection.cursor() as cursor:
            while not end.wait(INTERVAL_S):
                cursor.execute(QUESTION, [self._role])
                watch.samples.append(Sample(round(time.monotonic() - begun_at, 2), *cursor.fetchone()))

    def _sessions(self) -> int:
        """Return the number of connections to the database since its statistics were reset."""
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT sessions FROM pg_stat_database WHERE datname = current_database()")
            return int(cursor.fetchone()[0])
