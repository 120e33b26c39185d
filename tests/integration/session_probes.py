"""Tries what PostgreSQL offers a session, each in a request of its own, on the strategy that the environment names.

It runs as a process, since a process has one driver, and prints a JSON object: each probe with "", or with what went
wrong. Where PgBouncer could give the next statement another server connection, another client sees to it that it does.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.core.signals import request_finished, request_started
from django.db import OperationalError, connection, models, transaction

from config.strategies import Feature

# Locks of this run alone: whoever tries the next strategy has the same server.
RIVALS_LOCK, OWN_LOCK = (int(time.monotonic_ns() % 10**9) * 2 + number for number in range(2))
ROWS = 5000
STATEMENT_TIMEOUT_S = 1


class Misbehaves(Exception):
    """Nothing was raised, and what came was not what PostgreSQL gives."""


@dataclass(frozen=True)
class Probe:
    """A feature, tried in one way."""

    feature: Feature | None
    """that must be broken where this fails; None: it works on every strategy"""
    broken: str
    """a pattern of what goes wrong then"""
    attempt: Callable[[], None]


PROBES: dict[str, Probe] = {}


def tries(feature: Feature | None = None, *, broken: str = "") -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Add a function to the probes."""

    def add(attempt: Callable[[], None]) -> Callable[[], None]:
        PROBES[attempt.__name__] = Probe(feature, broken, attempt)
        return attempt

    return add


def expect(value: object, expected: object) -> None:
    if value != expected:
        raise Misbehaves(f"it gave {value!r} instead of {expected!r}")


def ask(statement: str, *values: Any) -> Any:
    """Run a statement on the request's connection; give the first value, if there is one."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


# The others: an observer, straight at the server, and a rival, who is a client as this process is.


@cache
def observer() -> Any:
    return _connect(directly=True)


@cache
def rival() -> Any:
    return _connect(directly=False)


def _connect(*, directly: bool) -> Any:
    from poolhouse.driver import driver, own_connection_params

    made = driver("default").connect(**own_connection_params("default", directly=directly))
    made.autocommit = True
    return made


def observe(statement: str) -> Any:
    with observer().cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


@contextmanager
def rival_busy() -> Iterator[None]:
    """Let the rival have the server connection that was used last, for the length of a block."""
    observe(f"SELECT pg_advisory_lock({RIVALS_LOCK})")

    def wait_for_it() -> None:
        with rival().cursor() as cursor:
            cursor.execute(f"SELECT pg_advisory_xact_lock({RIVALS_LOCK})")

    thread = threading.Thread(target=wait_for_it)
    thread.start()
    try:
        waiting = f"locktype = 'advisory' AND objid = {RIVALS_LOCK} AND NOT granted"
        await_that(f"SELECT EXISTS (SELECT FROM pg_locks WHERE {waiting})")
        yield
    finally:
        observe(f"SELECT pg_advisory_unlock({RIVALS_LOCK})")
        thread.join()


def await_that(condition: str) -> None:
    """Wait until the server says that something is true."""
    deadline = time.monotonic() + 60
    while not observe(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(condition)
        time.sleep(0.002)


def next_request() -> None:
    """End this request, and begin another."""
    request_finished.send(sender=None)
    request_started.send(sender=None)


@cache
def numbers() -> Any:
    """A model of the table `number`."""

    class Number(models.Model):
        id = models.IntegerField(primary_key=True)

        class Meta:
            managed = False
            app_label = "poolhouse"
            db_table = "number"

    return Number


def count_of(note: str) -> int:
    """How many rows of a probe's are committed?"""
    return int(observe(f"SELECT count(*) FROM note WHERE text = '{note}'"))


def note(text: str) -> None:
    ask("INSERT INTO note VALUES (%s)", text)


def read_in_pieces() -> int:
    """Read the table with another client between the pieces; give the sum."""
    rows = numbers().objects.order_by("pk").iterator(chunk_size=100)
    total = next(rows).pk
    with rival_busy():
        return int(total + sum(row.pk for row in rows))


@contextmanager
def cursors_allowed() -> Iterator[None]:
    """Let Django open server-side cursors, whatever the strategy says of them."""
    before = connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS", False)
    connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"] = False
    try:
        yield
    finally:
        connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"] = before


ALL_OF_IT = ROWS * (ROWS + 1) // 2
NO_CURSOR = r'cursor ".*" does not exist'
NO_TRANSACTION = "transaction blocks not allowed in statement pooling mode|server closed the connection"


# What works on every strategy.


@tries()
def query() -> None:
    expect(ask("SELECT 6 * %s", 7), 42)


@tries()
def pool_mode_is_the_row_s() -> None:
    from config.database import get_strategy
    from config.strategies import STRATEGIES
    from poolhouse.servers import pgbouncer

    if mode := STRATEGIES[get_strategy()].pool_mode:
        ask("SELECT 1")
        with pgbouncer.console_cursor("default") as cursor:
            expect({one.database: one.mode for one in pgbouncer.pools(cursor)}[connection.settings_dict["NAME"]], mode)


@tries()
def queryset_iterator() -> None:
    expect(read_in_pieces(), ALL_OF_IT)


@tries()
def many_rows() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT n, repeat('x', 100) FROM generate_series(1, 50000) AS n")
        expect(sum(len(rows) for rows in iter(lambda: cursor.fetchmany(1000), [])), 50_000)


@tries()
def copy() -> None:
    lines = "".join(f"copied {number}\n" for number in range(1000))
    with connection.cursor() as cursor:
        driver_s = cursor.cursor
        if hasattr(driver_s, "copy_expert"):
            import io

            driver_s.copy_expert("COPY note FROM STDIN", io.StringIO(lines))
        else:
            with driver_s.copy("COPY note FROM STDIN") as copying:
                copying.write(lines)
    expect(observe("SELECT count(*) FROM note WHERE text LIKE 'copied %'"), 1000)
    observe("TRUNCATE note")


@tries()
def statement_timeout() -> None:
    began_at = time.monotonic()
    try:
        ask(f"SELECT pg_sleep({5 * STATEMENT_TIMEOUT_S})")
    except OperationalError as error:
        expect("statement timeout" in str(error), True)
        expect((time.monotonic() - began_at) / STATEMENT_TIMEOUT_S > 0.9, True)
    else:
        raise Misbehaves("nothing ended the statement")


@tries()
def statement_timeout_after_a_reset() -> None:
    ask("RESET ALL")
    expect(ask("SHOW statement_timeout"), f"{STATEMENT_TIMEOUT_S}s")


@tries()
def next_request_after_its_server_connection_was_ended() -> None:
    pid = ask("SELECT pg_backend_pid()")
    request_finished.send(sender=None)
    observe(f"SELECT pg_terminate_backend({pid})")
    await_that(f"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})")
    _await_that_pgbouncer_knows(pid)
    request_started.send(sender=None)
    expect(ask("SELECT 1"), 1)


def _await_that_pgbouncer_knows(pid: int) -> None:
    from poolhouse.conf import options
    from poolhouse.servers import pgbouncer

    if not options().PGBOUNCER_URL:
        return
    with pgbouncer.console_cursor("default") as cursor:
        while pid in [server.remote_pid for server in pgbouncer.servers(cursor)]:
            time.sleep(0.002)


# What a transaction holds together.


@tries(Feature.ATOMIC, broken=NO_TRANSACTION)
def commit() -> None:
    with transaction.atomic():
        note("committed")
        with rival_busy():
            note("committed")
        expect(count_of("committed"), 0)
    expect(count_of("committed"), 2)


@tries(Feature.ATOMIC, broken=NO_TRANSACTION)
def rollback() -> None:
    with suppress(ZeroDivisionError), transaction.atomic():
        note("rolled back")
        raise ZeroDivisionError
    expect(ask("SELECT count(*) FROM note WHERE text = 'rolled back'"), 0)


@tries(Feature.ATOMIC, broken=NO_TRANSACTION)
def savepoint() -> None:
    with transaction.atomic():
        note("outer")
        with suppress(ZeroDivisionError), transaction.atomic():
            note("inner")
            raise ZeroDivisionError
    expect((count_of("outer"), count_of("inner")), (1, 0))


@tries(Feature.ATOMIC, broken=NO_TRANSACTION)
def cursor_of_a_transaction() -> None:
    with cursors_allowed(), transaction.atomic():
        expect(read_in_pieces(), ALL_OF_IT)


@tries(Feature.ATOMIC, broken=NO_TRANSACTION)
def advisory_lock_of_a_transaction() -> None:
    mine = f"SELECT pg_try_advisory_xact_lock({OWN_LOCK})"
    with transaction.atomic():
        expect(ask(mine), True)
        with rival_busy():
            expect(observe(mine), False)
    expect(observe(mine), True)


@tries(Feature.ATOMIC, broken=NO_TRANSACTION)
def setting_of_a_transaction() -> None:
    with transaction.atomic():
        ask("SET LOCAL probe.local = 'mine'")
        with rival_busy():
            expect(ask("SHOW probe.local"), "mine")
    expect(ask("SELECT coalesce(current_setting('probe.local', true), '')"), "")


@tries(Feature.ATOMIC, broken=NO_TRANSACTION)
def temporary_table_of_a_transaction() -> None:
    with transaction.atomic():
        ask("CREATE TEMPORARY TABLE passing ON COMMIT DROP AS SELECT 7 AS n")
        with rival_busy():
            expect(ask("SELECT n FROM passing"), 7)


# What a session holds together.


@tries(Feature.CURSORS, broken=NO_CURSOR)
def server_side_cursor() -> None:
    with cursors_allowed():
        expect(read_in_pieces(), ALL_OF_IT)


@tries(Feature.SETTINGS, broken="Misbehaves: it gave (None|'') instead of 'mine'")
def setting() -> None:
    ask("SET probe.setting = 'mine'")
    with rival_busy():
        expect(ask("SELECT current_setting('probe.setting', true)"), "mine")


@tries(Feature.ISOLATION, broken="Misbehaves: it gave 'left behind' instead of ''")
def setting_of_the_request_before() -> None:
    ask("SET probe.before = 'left behind'")
    next_request()
    expect(ask("SELECT coalesce(current_setting('probe.before', true), '')"), "")


@tries(Feature.ADVISORY_LOCKS, broken="Misbehaves: it gave False instead of True")
def advisory_lock() -> None:
    ask(f"SELECT pg_advisory_lock({OWN_LOCK})")
    with rival_busy():
        expect(ask(f"SELECT pg_advisory_unlock({OWN_LOCK})"), True)


@tries(Feature.LISTEN, broken="Misbehaves: no notification came")
def listen() -> None:
    ask("LISTEN probe")
    with rival_busy():
        observe("NOTIFY probe, 'hello'")
        deadline = time.monotonic() + 2
        while _notifications() != ["hello"]:
            if time.monotonic() > deadline:
                raise Misbehaves("no notification came")
            ask("SELECT 1")  # what has come meanwhile is given with its answer


def _notifications() -> list[str]:
    held: Any = connection.connection
    if hasattr(held, "notifies") and not callable(held.notifies):
        return [one.payload for one in held.notifies]
    return [one.payload for one in held.notifies(timeout=0.01)]


@tries(Feature.TEMPORARY_TABLES, broken='relation "kept" does not exist')
def temporary_table() -> None:
    ask("CREATE TEMPORARY TABLE kept AS SELECT 7 AS n")
    with rival_busy():
        expect(ask("SELECT n FROM kept"), 7)


@tries(Feature.PREPARE, broken='prepared statement "probe" does not exist')
def prepare() -> None:
    ask("PREPARE probe AS SELECT 7")
    with rival_busy():
        expect(ask("EXECUTE probe"), 7)


@tries(Feature.PREPARED_STATEMENTS, broken="TypeError: .*argument")
def prepared_statements() -> None:
    from poolhouse.driver import driver

    connection.ensure_connection()
    held: Any = connection.connection
    if hasattr(held, "prepare_threshold"):
        held.prepare_threshold, held.prepared_max = 0, 2  # so that the driver also gives some up
        cursor = driver("default").Cursor(held)
    else:
        cursor = held.cursor()
    for _ in range(2):
        for factor in (1, 2, 3, 1):
            cursor.execute(f"SELECT {factor} * %s", [7], prepare=True)
            expect(cursor.fetchone()[0], factor * 7)
            with rival_busy():
                cursor.execute(f"SELECT {factor} * %s", [8], prepare=True)
                expect(cursor.fetchone()[0], factor * 8)
    expect(ask("SELECT count(*) > 0 FROM pg_prepared_statements"), True)


@tries(Feature.STARTUP_OPTIONS, broken="unsupported startup parameter in options: work_mem")
def startup_options() -> None:
    from poolhouse.driver import driver, own_connection_params

    params = {**own_connection_params("default"), "options": "-c work_mem=1234kB"}
    other = driver("default").connect(**params)
    try:
        with other.cursor() as cursor:
            cursor.execute("SHOW work_mem")
            expect(cursor.fetchone()[0], "1234kB")
    finally:
        other.close()


def outcome_of(probe: Probe) -> str:
    """Try one; give "", or what went wrong."""
    request_started.send(sender=None)
    try:
        probe.attempt()
    except Exception as error:  # noqa: BLE001 - it is what is asked for
        connection.close()
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    finally:
        request_finished.send(sender=None)
    return ""


if __name__ == "__main__":
    from config.start import start

    start("web")
    import django

    django.setup()
    sys.stdout.write(json.dumps({name: outcome_of(probe) for name, probe in PROBES.items()}))
