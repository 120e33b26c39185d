"""What a request does to the database: each workload is a view of the lab's web."""

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import Error, connection, transaction
from django.db.backends.utils import CursorWrapper
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import path
from sqlalchemy.exc import TimeoutError as PlainPoolTimeout

THINK_S = 0.05
SLOW_S = 0.2
ONE_SLOW_IN = 10
READY_S = 0.05
CHUNKS, CHUNK_S = 10, 0.005

SLOW_STATUS = 202
"""a slow request's, so that a log of statuses tells it from the fast ones"""
ERRORS = {
    503: "pool: no connection in time",
    504: "PgBouncer: no connection in time",
    507: "PostgreSQL: too many connections",
    502: "connection closed by the other side",
    500: "other error",
}
"""what each status of the lab's web means"""

POOL_TIMEOUTS = {"PoolTimeoutError", "PoolTimeout", PlainPoolTimeout.__name__}
"""of this project's engine, of psycopg's pool (Django wraps it), and of dj_db_conn_pool"""

_numbers = itertools.count(os.getpid())  # so that processes do not have their slow ones together


def ready(_: HttpRequest) -> HttpResponse:
    """Answer without the database: some strategies leave no connection for the asking.

    After a moment, so that of many who ask at once, all processes get one.
    """
    time.sleep(READY_S)
    return _answer("ready")


def one(_: HttpRequest) -> HttpResponse:
    """Ask one short query."""
    return _answer(_query())


def ten(_: HttpRequest) -> HttpResponse:
    """Ask ten short queries, one after the other."""
    return _answer(sum(_query() for _ in range(10)))


def think(_: HttpRequest) -> HttpResponse:
    """Hold a transaction open while the application thinks."""
    with transaction.atomic():
        _query()
        time.sleep(THINK_S)
        return _answer(_query())


def mixed(_: HttpRequest) -> HttpResponse:
    """Ask one slow query in every ten requests, a short one otherwise."""
    if next(_numbers) % ONE_SLOW_IN:
        return _answer(_query())
    return _answer(_query("SELECT 1 FROM pg_sleep(%s)", SLOW_S), status=SLOW_STATUS)


def stream(request: HttpRequest) -> HttpResponseBase:
    """Send what a query gives row by row, to a client that takes its time.

    As `QuerySet.iterator()` has it: by a server-side cursor, which fetches each row from the server, unless these are
    disabled; then all rows are here at once.
    """
    are_disabled = connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
    cursor = connection.cursor() if are_disabled else connection.chunked_cursor()
    cursor.execute("SELECT generate_series(1, %s)", [CHUNKS])
    return StreamingHttpResponse(_lines_in_loop(cursor) if isinstance(request, ASGIRequest) else _lines(cursor))


def _lines(cursor: CursorWrapper) -> Iterator[str]:
    with cursor:
        while row := cursor.fetchone():
            time.sleep(CHUNK_S)
            yield f"{row[0]}\n"


async def _lines_in_loop(cursor: CursorWrapper) -> AsyncIterator[str]:
    """Do the same under ASGI, where Django reads all of what is not asynchronous before it sends anything."""
    try:
        while row := await sync_to_async(cursor.fetchone)():
            await asyncio.sleep(CHUNK_S)
            yield f"{row[0]}\n"
    finally:
        await sync_to_async(cursor.close)()


def _query(sql: str = "SELECT 1", *parameters: float) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return int(cursor.fetchone()[0])


def _answer(said: int | str, status: int = 200) -> HttpResponse:
    body = f"{said}\n".encode()
    return HttpResponse(body, status=status, headers={"Content-Length": str(len(body)), "X-Process": str(os.getpid())})


View = Callable[[HttpRequest], HttpResponseBase]


@dataclass(frozen=True)
class Workload:
    """A kind of request."""

    view: View
    label: str

    @property
    def name(self) -> str:
        """Its name, which is its path."""
        return self.view.__name__


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(one, "one short query"),
        Workload(ten, "ten short queries"),
        Workload(think, f"a transaction with {THINK_S * 1000:.0f} ms of thought"),
        Workload(mixed, f"one query of {SLOW_S * 1000:.0f} ms in {ONE_SLOW_IN} short ones"),
        Workload(stream, f"a response streamed for {CHUNKS * CHUNK_S * 1000:.0f} ms"),
    )
}


def _telling_errors(view: View) -> View:
    """Let the status say what stood in the way, instead of a page about it."""

    def told(request: HttpRequest) -> HttpResponseBase:
        try:
            return view(request)
        except (Error, PlainPoolTimeout) as error:
            return _answer(f"{error}", status=error_status(error))

    return told


def error_status(error: Exception) -> int:
    """Say which of ERRORS it is: an error at connecting has no code, so its words decide."""
    said = str(error).lower()
    if "too many clients" in said or "remaining connection slots" in said:
        return 507
    if "query_wait_timeout" in said:
        return 504
    if "server closed the connection" in said:  # as PgBouncer does, and its reason does not always get through
        return 502
    is_pool_timeout = {type(error).__name__, type(error.__cause__).__name__} & POOL_TIMEOUTS
    return 503 if is_pool_timeout else 500


urlpatterns = [
    path("ready", ready),
    *(path(name, _telling_errors(workload.view)) for name, workload in WORKLOADS.items()),
]
