"""What the web says of itself."""

from collections.abc import Mapping

import redis
from django.conf import settings
from django.db import Error, connection
from django.http import HttpRequest, JsonResponse

from poolhouse import __version__
from poolhouse.helpers import check_connection_health
from poolhouse.identity import current
from poolhouse.process.pools import pool_states

PROBE_TIMEOUT_S = 2


def index(request: HttpRequest) -> JsonResponse:
    """Say which service this is, and which connection served this request."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_backend_pid(), current_setting('application_name'), current_setting('server_version')"
            )
            backend_pid, application_name, server_version = cursor.fetchone()
    except Error as error:
        return _document({"service": current().service, "problem": _one_line(error)}, status=503)
    (pool,) = (state for state in pool_states() if state.alias == connection.alias)
    return _document(
        {
            "service": current().service,
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


def healthz(request: HttpRequest) -> JsonResponse:
    """Say that this process answers; it asks nobody else."""
    return _document({"status": "ok"})


def readyz(request: HttpRequest) -> JsonResponse:
    """Say whether a request that needs the database and the broker can be served now; 503 with the reason if not."""
    problems = {name: problem for name, probe in PROBES.items() if (problem := probe()) is not None}
    document = {name: problems.get(name, "ok") for name in PROBES}
    return _document(document, status=503 if problems else 200)


def _probe_database() -> str | None:
    """Ask outside the pool, which must not be waited for, on the way that requests go, be it through PgBouncer."""
    (pool,) = (state for state in pool_states() if state.alias == connection.alias)
    if pool.max is not None and pool.in_use >= pool.max:
        return f"the pool is exhausted: {pool.in_use} of {pool.max} connections in use"
    return check_connection_health(connection.alias, PROBE_TIMEOUT_S).reason or None


def _probe_broker() -> str | None:
    broker = redis.Redis.from_url(
        settings.BROKER_URL, socket_timeout=PROBE_TIMEOUT_S, socket_connect_timeout=PROBE_TIMEOUT_S
    )
    try:
        broker.ping()
    except redis.RedisError as error:
        return _one_line(error)
    finally:
        broker.close()
    return None


PROBES = {"database": _probe_database, "broker": _probe_broker}


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _document(data: Mapping[str, object], status: int = 200) -> JsonResponse:
    return JsonResponse(data, status=status, json_dumps_params={"indent": 2})
