"""What does an open connection cost? The memory of its backend, and the effect of idle connections on others."""

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
# Fields of /proc/PID/smaps_rollup. Shared pages count in full in the first, in part in the second and not in the third;
# the last excludes pages of the server's buffers that no other process has read yet.
KINDS = {"resident": "Rss", "proportional": "Pss", "private": "Private_Clean Private_Dirty", "anonymous": "Pss_Anon"}
IDLE = (0, 10, 50, 100, 200)
UPDATES, BURSTS = 400, 8
CLIENTS = 100


def make_tables(bench: Bench) -> None:
    """Create tables like those of an application with one row each, and a table whose row is updated."""
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
    """Return the memory of a backend in each of its states."""
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
                    for _ in range(6):  # the server keeps a generic plan from the sixth execution on
                        cursor.execute(f"EXECUTE lab_{number}_{kind} (%s)", ["1"])
            seen["many_prepared"] = memory_kib(pid)
    return seen


def _queries(number: int) -> tuple[str, str, str]:
    """Return the queries of an application on one table: a lookup, a list with a join, an update."""
    table, other = f"lab_{number}", f"lab_{(number + 1) % TABLES}"
    return (
        f"SELECT * FROM {table} WHERE name = %(name)s",  # noqa: S608 - all of these are ours
        f"SELECT a.*, b.name FROM {table} a JOIN {other} b ON b.id = a.owner_id WHERE a.owner_id = %(owner)s "  # noqa: S608
        "ORDER BY a.made_at DESC LIMIT 20",
        f"UPDATE {table} SET amount = amount + 1 WHERE id = %(owner)s",  # noqa: S608
    )


def memory_kib(pid: int) -> dict[str, int]:
    """Return the memory of a process by kind, with its page tables in the kernel."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    found = {name: int(size.split()[0]) for name, _, size in (line.partition(":") for line in lines)}
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    tables = next(int(line.split()[1]) for line in status if line.startswith("VmPTE:"))
    return {kind: sum(found[name] for name in names.split()) for kind, names in KINDS.items()} | {"page_tables": tables}


def pooler_client_kib(bench: Bench) -> float:
    """Return the memory that PgBouncer needs for each connected client."""
    pid = _pid(bench.pooler)
    before_kib = memory_kib(pid)["private"]
    with ExitStack() as held:
        for _ in range(CLIENTS):
            held.enter_context(_open(bench, "pgbouncer_transaction"))
        return (memory_kib(pid)["private"] - before_kib) / CLIENTS


def idle_round(bench: Bench) -> tuple[dict[int, float], float]:
    """Open more and more idle connections.

    Returns:
        the microseconds of an update by the number of idle connections, and the KiB that the whole server needs for
        each of them.
    """
    spans_us, memory = {}, {}
    with _open(bench, "socket_peer") as asking, ExitStack() as held:
        asking.cursor().execute("SET synchronous_commit = off")  # without the time of the disk
        _update_us(asking)  # warm
        for count, more in zip(IDLE, (0, *map(sub, IDLE[1:], IDLE)), strict=True):
            for _ in range(more):
                idle = held.enter_context(_open(bench, "socket_peer"))
                idle.cursor().execute("SELECT count(*) FROM lab_counter")
            spans_us[count] = min(
                _update_us(asking) for _ in range(BURSTS)
            )  # other load on the machine can only add time
            memory[count] = _server_kib(bench)
    return spans_us, (memory[IDLE[-1]] - memory[0]) / IDLE[-1]


def _update_us(connection: Connection) -> float:
    """Return the microseconds of a transaction that changes a row, without the round trip to the server.

    Each of them makes the server scan all connections again to build the next snapshot.
    """
    begun_s = time.perf_counter()
    connection.cursor().execute(
        f"DO $$ BEGIN FOR i IN 1..{UPDATES} LOOP UPDATE lab_counter SET number = i; COMMIT; END LOOP; END $$"  # noqa: S608
    )
    return (time.perf_counter() - begun_s) / UPDATES * 1e6


def _server_kib(bench: Bench) -> int:
    """Return the memory of all the server's processes: shared pages count once, page tables for each process."""
    pid = _pid(bench.server)
    memories = [memory_kib(each) for each in (pid, *children_of(pid))]
    return sum(memory["proportional"] + memory["page_tables"] for memory in memories)


def _pid(server: Server) -> int:
    if (pid := server.pid) is None:
        raise RuntimeError(f"{server.name} has stopped; see its log {server.log}")
    return pid


@contextmanager
def _open(bench: Bench, way: str) -> Iterator[Connection]:
    with closing(psycopg2.connect(**bench.options(WAYS[way]))) as connection:
        connection.autocommit = True
        yield connection
