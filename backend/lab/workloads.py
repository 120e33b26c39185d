"""The workloads: what a request does to the database. Each is a view of the lab's web application."""

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
"""the status of slow requests, which identifies them in the log of h2load"""
ERRORS = {
    503: "pool: no connection in time",
    504: "PgBouncer: no connection in time",
    507: "PostgreSQL: too many connections",
    502: "connection closed by the other side",
    500: "other error",
}
"""the kind of error by HTTP status"""

POOL_TIMEOUTS = {"PoolTimeoutError", "PoolTimeout", PlainPoolTimeout.__name__}
"""the pool timeouts of this project's engine, of psycopg's pool (wrapped by Django) and of dj_db_conn_pool"""

_numbers = itertools.count(os.getpid())  # so that the slow requests of several processes do not coincide


def ready(_: HttpRequest) -> HttpResponse:
    """Answer without the database, because some strategies may have no free connection.

    The answer takes a moment, so that of many concurrent requests each process gets one.
    """
    time.sleep(READY_S)
    return _answer("ready")


def one(_: HttpRequest) -> HttpResponse:
    """Run one short query."""
    return _answer(_query())


def ten(_: HttpRequest) -> HttpResponse:
    """Run ten short queries, one after the other."""
    return _answer(sum(_query() for _ in range(10)))


def think(_: HttpRequest) -> HttpResponse:
    """Hold a transaction open while the application does something else."""
    with transaction.atomic():
        _query()
        time.sleep(THINK_S)
        return _answer(_query())


def mixed(_: HttpRequest) -> HttpResponse:
    """Run a slow query in one of ten requests, and a short one in the others."""
    if next(_numbers) % ONE_SLOW_IN:
        return _answer(_query())
    return _answer(_query("SELECT 1 FROM pg_sleep(%s)", SLOW_S), status=SLOW_STATUS)


def stream(request: HttpRequest) -> HttpResponseBase:
    """Stream the rows of a query to a slow client.

    Like `QuerySet.iterator()`: a server-side cursor fetches each row from the server. If these cursors are disabled,
    all rows are in memory at once.
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
    """Return the lines for ASGI, where Django would read a synchronous iterator completely before it sends anything."""
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


def _answer(text: int | str, status: int = 200) -> HttpResponse:
    body = f"{text}\n".encode()
    return HttpResponse(body, status=status, headers={"Content-Length": str(len(body)), "X-Process": str(os.getpid())})


View = Callable[[HttpRequest], HttpResponseBase]


@dataclass(frozen=True)
class Workload:
    """A kind of request."""

    view: View
    label: str

    @property
    def name(self) -> str:
        """The name, which is also the path."""
        return self.view.__name__


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(one, "one short query"),
        Workload(ten, "ten short queries"),
        Workload(think, f"a transaction with {THINK_S * 1000:.0f} ms pause"),
        Workload(mixed, f"one query of {SLOW_S * 1000:.0f} ms in {ONE_SLOW_IN} short ones"),
        Workload(stream, f"a response streamed for {CHUNKS * CHUNK_S * 1000:.0f} ms"),
    )
}


def _with_error_statuses(view: View) -> View:
    """Answer database errors with a status of ERRORS instead of an error page."""

    def answered(request: HttpRequest) -> HttpResponseBase:
        try:
            return view(request)
        except (Error, PlainPoolTimeout) as error:
            return _answer(f"{error}", status=error_status(error))

    return answered


def error_status(error: Exception) -> int:
    """Return the status of ERRORS for an error; a failure to connect has no SQLSTATE, so its text decides."""
    text = str(error).lower()
    if "too many clients" in text or "remaining connection slots" in text:
        return 507
    if "query_wait_timeout" in text:
        return 504
    if "server closed the connection" in text:  # by PgBouncer, whose reason is sometimes lost
        return 502
    is_pool_timeout = {type(error).__name__, type(error.__cause__).__name__} & POOL_TIMEOUTS
    return 503 if is_pool_timeout else 500


urlpatterns = [
    path("ready", ready),
    *(path(name, _with_error_statuses(workload.view)) for name, workload in WORKLOADS.items()),
]
