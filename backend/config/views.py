"""The status pages of the web. All clients see whether it works; requests with METRICS_TOKEN see the details."""

import os
from collections.abc import Callable, Mapping

from django.db import Error, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from poolhouse import __version__
from poolhouse.formatting import one_line
from poolhouse.helpers import check_connection_health
from poolhouse.identity import current
from poolhouse.metrics.access import may_read
from poolhouse.metrics.snapshot import Recent
from poolhouse.process.pools import pool_states

PROBE_TIMEOUT_S = 2
PROBE_MAX_AGE_S = 2

View = Callable[[HttpRequest], HttpResponse]


def page(view: View) -> View:
    """Restrict a view to GET and HEAD; another method gets 405 instead of the CSRF page."""
    return csrf_exempt(require_safe(view))


@page
def index(request: HttpRequest) -> JsonResponse:
    """Return the service, and the connection that served this request."""
    public = {"service": current().service}
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_backend_pid(), current_setting('application_name'), current_setting('server_version')"
            )
            backend_pid, application_name, server_version = cursor.fetchone()
    except Error as error:
        problem = _kind_and_text(error) if may_read(request) else "database: unavailable"
        return _document({**public, "problem": problem}, status=503)
    if not may_read(request):
        return _document(public)
    (pool,) = (state for state in pool_states() if state.alias == connection.alias)
    return _document(
        {
            **public,
            "version": __version__,
            "process": current().name,
            "connection": {
                "engine": pool.engine,
                "backend_pid": backend_pid,
                "application_name": application_name,
                "server_version": server_version,
            },
            "pool": {"size": pool.size, "max": pool.max, "in_use": pool.in_use, "idle": pool.idle},
        }
    )


@page
def healthz(request: HttpRequest) -> JsonResponse:
    """Return 200 while this process answers; no server is queried."""
    return _document({"status": "ok"})


@page
def readyz(request: HttpRequest) -> JsonResponse:
    """Return 200 if a request that needs the database can be served now, else 503.

    Requests do not need the broker: the ledger keeps an upload's job until beat can send it.
    """
    reason = _exhaustion() or database_problem.get(PROBE_MAX_AGE_S)
    shown = reason if may_read(request) else "unavailable"
    return _document({"database": shown if reason else "ok"}, status=503 if reason else 200)


def _exhaustion() -> str:
    (pool,) = (state for state in pool_states() if state.alias == connection.alias)
    if pool.max is None or pool.in_use < pool.max:
        return ""
    return f"the pool is exhausted: {pool.in_use} of {pool.max} connections in use"


def _probe_database() -> str:
    """Query outside the pool, so as not to wait for it, but through PgBouncer if requests go through it."""
    return check_connection_health(connection.alias, PROBE_TIMEOUT_S).reason


# However many probes arrive, a process opens one connection at a time, at most every PROBE_MAX_AGE_S.
database_problem: Recent[str] = Recent(_probe_database)
os.register_at_fork(after_in_child=database_problem.forget_parent)


def _kind_and_text(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def _document(data: Mapping[str, object], status: int = 200) -> JsonResponse:
    return JsonResponse(data, status=status, json_dumps_params={"indent": 2})
