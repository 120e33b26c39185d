"""What does a connection cost while it is held? The memory of the server's process, and what idle ones do to others."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from operator import sub
from pathlib import Path
from typing import TypeAlias

import psycopg2

from lab.connect import WAYS, Bench
from sandbox.isolation import superuser_sql
from sandbox.processes import children_of
from sandbox.servers import Server

Connection: TypeAlias = "psycopg2.extensions.connection"

TABLES = 200
STATES = ("connected", "one_query", "many_queries", "many_prepared")
STATE_LABELS = {
    "connected": "just connected",
    "one_query": "after one query",
    "many_queries": f"after {3 * TABLES} queries",
    "many_prepared": f"and {2 * TABLES} prepared",
}
# Of /proc/PID/smaps_rollup. What is shared counts in full in the first, in part in the second, not in the third; the
# last leaves out the pages of the server's buffers that nobody else has happened to read yet.
KINDS = {"resident": "Rss", "proportional": "Pss", "private": "Private_Clean Private_Dirty", "anonymous": "Pss_Anon"}
IDLE = (0, 10, 50, 100, 200)
UPDATES, BURSTS = 400, 8
CLIENTS = 100


def make_tables(bench: Bench) -> None:
    """Make tables as an application has them, with a row in each, and one whose row is updated."""
    with _open(bench, "tcp") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE lab_counter (number integer)")
        cursor.execute("INSERT INTO lab_counter VALUES (0)")
        for number in range(TABLES):
            cursor.execute(
                f"CREATE TABLE lab_{number} (id bigserial PRIMARY KEY, name text NOT NULL, note varchar(80), "
                "amount numeric(12, 2) NOT NULL, is_active boolean NOT NULL, made_at timestamptz NOT NULL, "
                "tags jsonb NOT NULL, owner_id bigint NOT NULL)"
            )
            cursor.execute(f"CREATE INDEX ON lab_{number} (owner_id, made_at)")
            cursor.execute(f"CREATE UNIQUE INDEX ON lab_{number} (name)")
            cursor.execute(f"INSERT INTO lab_{number} VALUES (1, 'a', '', 1, true, now(), '{{}}', 1)")  # noqa: S608 - ours
    superuser_sql(f"GRANT ALL ON lab_counter TO {WAYS['socket_peer'].user}", bench.database.db_name)


def backend_memory_kib(bench: Bench, way: str) -> dict[str, dict[str, int]]:
    """Give the memory of the process that serves a connection, in each of its states."""
    with _open(bench, way) as connection:
        pid = connection.info.backend_pid
        seen = {"connected": memory_kib(pid)}
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM lab_0")
            seen["one_query"] = memory_kib(pid)
            for number in range(TABLES):
                for query in _queries(number):
                    cursor.execute(query, {"name": "a", "owner": 1})
            seen["many_queries"] = memory_kib(pid)
            for number in range(TABLES):
                for kind, query in enumerate(_queries(number)[:2]):
                    prepared = query % {"name": "$1", "owner": "$1"}
                    cursor.execute(f"PREPARE lab_{number}_{kind} AS {prepared}")
                    for _ in range(6):  # from the sixth on, the server keeps a plan
                        cursor.execute(f"EXECUTE lab_{number}_{kind} (%s)", ["1"])
            seen["many_prepared"] = memory_kib(pid)
    return seen


def _queries(number: int) -> tuple[str, str, str]:
    """Give what an application asks of one table: a look-up, a list with a join, a change."""
    table, other = f"lab_{number}", f"lab_{(number + 1) % TABLES}"
    return (
        f"SELECT * FROM {table} WHERE name = %(name)s",  # noqa: S608 - all of these are ours
        f"SELECT a.*, b.name FROM {table} a JOIN {other} b ON b.id = a.owner_id WHERE a.owner_id = %(owner)s "  # noqa: S608
        "ORDER BY a.made_at DESC LIMIT 20",
        f"UPDATE {table} SET amount = amount + 1 WHERE id = %(owner)s",  # noqa: S608
    )


def memory_kib(pid: int) -> dict[str, int]:
    """Give the memory of a process by kind, with the page tables that the kernel keeps for it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    found = {name: int(size.split()[0]) for name, _, size in (line.partition(":") for line in lines)}
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    tables = next(int(line.split()[1]) for line in status if line.startswith("VmPTE:"))
    return {kind: sum(found[name] for name in names.split()) for kind, names in KINDS.items()} | {"page_tables": tables}


def pooler_client_kib(bench: Bench) -> float:
    """Give what PgBouncer needs for each client that is connected to it."""
    pid = _pid(bench.pooler)
    before_kib = memory_kib(pid)["private"]
    with ExitStack() as held:
        for _ in range(CLIENTS):
            held.enter_context(_open(bench, "pgbouncer_transaction"))
        return (memory_kib(pid)["private"] - before_kib) / CLIENTS


def idle_round(bench: Bench) -> tuple[dict[int, float], float]:
    """Open more and more connections that do nothing.

    Returns:
        the microseconds of an update by how many idle connections are there, and KiB that the whole server needs for
        each of them.
    """
    spans_us, memory = {}, {}
    with _open(bench, "socket_peer") as asking, ExitStack() as held:
        asking.cursor().execute("SET synchronous_commit = off")  # the disk's time is another matter
        _update_us(asking)  # warm
        for count, more in zip(IDLE, (0, *map(sub, IDLE[1:], IDLE)), strict=True):
            for _ in range(more):
                idle = held.enter_context(_open(bench, "socket_peer"))
                idle.cursor().execute("SELECT count(*) FROM lab_counter")
            spans_us[count] = min(_update_us(asking) for _ in range(BURSTS))  # whatever else runs only adds to it
            memory[count] = _server_kib(bench)
    return spans_us, (memory[IDLE[-1]] - memory[0]) / IDLE[-1]


def _update_us(connection: Connection) -> float:
    """Give the microseconds of a transaction that changes a row, without the way to the server and back.

    Each of them makes the server look through all connections anew, for which transactions the next one may see.
    """
    begun_s = time.perf_counter()
    connection.cursor().execute(
        f"DO $$ BEGIN FOR i IN 1..{UPDATES} LOOP UPDATE lab_counter SET number = i; COMMIT; END LOOP; END $$"  # noqa: S608
    )
    return (time.perf_counter() - begun_s) / UPDATES * 1e6


def _server_kib(bench: Bench) -> int:
    """Add up what all the server's processes need: what they share counts once, page tables for each."""
    pid = _pid(bench.server)
    memories = [memory_kib(each) for each in (pid, *children_of(pid))]
    return sum(memory["proportional"] + memory["page_tables"] for memory in memories)


def _pid(server: Server) -> int:
    if (pid := server.pid) is None:
        raise RuntimeError(f"{server.name} does not run any more; its log is {server.log}")
    return pid


@contextmanager
def _open(bench: Bench, way: str) -> Iterator[Connection]:
    with closing(psycopg2.connect(**bench.options(WAYS[way]))) as connection:
        connection.autocommit = True
        yield connection
