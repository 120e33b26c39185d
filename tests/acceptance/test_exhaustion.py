"""The web with an exhausted pool: which requests it still answers, and which get the pool timeout."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psycopg2
import pytest

from config.env import Database, read
from sandbox.isolation import connect
from sandbox.stack import Stack
from tests.acceptance.conftest import reader
from tests.conftest import DEADLINE_S, Stopwatch, await_that

POOL_TIMEOUT_S = 10


@pytest.fixture(scope="module")
def exhausted(make_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A web whose two connections both wait for a lock that the test holds."""
    pool = {"DB_MAX_CONNS_DEV": "2", "DB_MAX_OVERFLOW_DEV": "0", "DB_POOL_TIMEOUT": str(POOL_TIMEOUT_S)}
    stack = make_stack(**pool, WEB_PROCESSES="1", DB_STATEMENT_TIMEOUT="0")
    manager = stack.start()
    lock = connect(read(Database), name=stack.variables["DB_NAME"])
    try:
        with lock.cursor() as cursor:
            cursor.execute("LOCK TABLE django_session IN ACCESS EXCLUSIVE MODE")
        with ThreadPoolExecutor(2) as visitors:
            for _ in range(2):
                visitors.submit(visit_session, stack)
            _await_waiters(lock, 2)
            yield stack
            lock.rollback()
    finally:
        lock.close()
        stack.stop(manager)


def visit_session(stack: Stack) -> int:
    """Ask for a page that reads the session, and so waits for the lock."""
    request = Request(f"{stack.address}/admin/", headers={"Cookie": "sessionid=0123456789abcdef0123456789abcdef"})
    with urlopen(request, timeout=5 * DEADLINE_S) as answer:
        return int(answer.status)


def _await_waiters(connection: "psycopg2.extensions.connection", count: int) -> None:
    def waiting() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            (found,) = cursor.fetchone()
        return int(found)

    await_that(lambda: waiting() == count, f"{count} waiting for the lock")


def answer_of(stack: Stack, path: str) -> tuple[int, str]:
    try:
        with urlopen(Request(f"{stack.address}{path}", headers=reader()), timeout=DEADLINE_S) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_probes_answer_at_once_and_say_why_and_a_request_gets_its_timeout(exhausted: Stack) -> None:
    with ThreadPoolExecutor(1) as visitor, Stopwatch() as waiting:
        visit = visitor.submit(answer_of, exhausted, "/")
        status, body = answer_of(exhausted, "/readyz")
        assert status == 503
        assert "the pool is exhausted: 2 of 2 connections in use" in body
        assert answer_of(exhausted, "/healthz")[0] == 200
        assert not visit.done(), "a probe must not wait for what it is to report on"
        status, body = visit.result()
    assert status == 503
    assert "all connections are in use; size 2, overflow 0, in use 2, waiting 1; longest held: " in body
    assert waiting.s >= POOL_TIMEOUT_S


def test_the_api_answers_with_a_problem_and_says_when_to_come_back(exhausted: Stack) -> None:
    request = Request(f"{exhausted.address}/api/jobs/", headers={"Authorization": "Bearer any"})
    with pytest.raises(HTTPError) as refused:
        urlopen(request, timeout=DEADLINE_S)
    assert (refused.value.code, refused.value.headers["Content-Type"]) == (503, "application/problem+json")
    assert refused.value.headers["Retry-After"] == "5"
    refused.value.close()
