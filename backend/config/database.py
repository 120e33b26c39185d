"""DATABASES from the environment: the pool for the web, Django's standard backend for Celery's processes."""

from typing import Any
from urllib.parse import parse_qsl, unquote

from pydantic import PostgresDsn

from config.env import Database

# dj_db_conn_pool's, with what that lacks.
POOLED_ENGINE = "poolhouse.engines.postgresql"
STANDARD_ENGINE = "django.db.backends.postgresql"


def get_database_settings(database: Database, *, development: bool, celery_worker_running: bool) -> dict[str, Any]:
    """Make Django's DATABASES.

    Args:
        database: the environment's DB_* variables or its DATABASE_URL.
        development: prefer a pool variable's _DEV variant where it is set.
        celery_worker_running: use the standard backend. A prefork worker forks, and a pool must not be shared over a
            fork; nor would one help there, since each child runs one task at a time on one connection.

    """
    server = _server_from_url(database.database_url) if database.database_url else _server_from_variables(database)
    given = server.pop("OPTIONS", {})
    server["OPTIONS"] = {
        "connect_timeout": database.db_connect_timeout,
        **given,
        "options": f"-c statement_timeout={database.db_statement_timeout} {given.get('options', '')}".strip(),
    }
    strategy = _standard(database) if celery_worker_running else _pooled(database, development=development)
    return {"default": {**server, **strategy}}


def _server_from_variables(database: Database) -> dict[str, Any]:
    return {
        "HOST": database.db_host,
        "PORT": database.db_port,
        "NAME": database.db_name,
        "USER": database.db_user,
        "PASSWORD": database.db_pass.get_secret_value(),
    }


def _server_from_url(url: PostgresDsn) -> dict[str, Any]:
    (host,) = url.hosts()
    return {
        "HOST": unquote(host["host"] or "").strip("[]"),  # an IPv6 address has brackets in a URL alone
        "PORT": host["port"] or 5432,
        "NAME": unquote((url.path or "").lstrip("/")),
        "USER": unquote(host["username"] or ""),
        "PASSWORD": unquote(host["password"] or ""),
        "OPTIONS": dict(parse_qsl(url.query or "")),
    }


def _pooled(database: Database, *, development: bool) -> dict[str, Any]:
    def chosen(name: str) -> Any:
        variant = getattr(database, f"{name}_dev") if development else None
        return getattr(database, name) if variant is None else variant

    return {
        "ENGINE": POOLED_ENGINE,
        # Anything else would let every thread keep a slot of the pool for good.
        "CONN_MAX_AGE": 0,
        "POOL_OPTIONS": {
            "POOL_SIZE": chosen("db_max_conns"),
            "MAX_OVERFLOW": chosen("db_max_overflow"),
            "RECYCLE": chosen("db_pool_recycle"),
            "TIMEOUT": chosen("db_pool_timeout"),
            "PRE_PING": database.db_conn_health_checks,
            "MIN_SIZE": min(chosen("db_min_conns"), chosen("db_max_conns")),
        },
    }


def _standard(database: Database) -> dict[str, Any]:
    return {
        "ENGINE": STANDARD_ENGINE,
        "CONN_MAX_AGE": database.db_conn_max_age,
        "CONN_HEALTH_CHECKS": database.db_conn_health_checks,
    }
