"""DATABASES from the environment: the strategy that it names for the web, Django's own backend for Celery."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from pydantic import PostgresDsn

from config.env import Database, Queue, Web

POOLED_ENGINE = "poolhouse.engines.postgresql"
PLAIN_POOLED_ENGINE = "dj_db_conn_pool.backends.postgresql"
STANDARD_ENGINE = "django.db.backends.postgresql"


@dataclass(frozen=True)
class Strategy:
    """A way to keep connections."""

    engine: str
    driver: str
    """psycopg2, or psycopg for psycopg 3"""
    settings: Callable[[Database, "Chosen"], dict[str, Any]]


def get_database_settings(database: Database, *, development: bool, celery_worker_running: bool) -> dict[str, Any]:
    """Make Django's DATABASES, and see to it that they are served by the strategy's driver.

    Args:
        database: the environment's DB_* variables or its DATABASE_URL.
        development: prefer a pool variable's _DEV variant where it is set.
        celery_worker_running: use the standard backend. A prefork worker forks, and a pool must not be shared over a
            fork; nor would one help there, since each child runs one task at a time on one connection.

    """
    strategy = STRATEGIES["persistent" if celery_worker_running else database.db_strategy]
    _use_driver(strategy.driver)
    server = _server_from_url(database.database_url) if database.database_url else _server_from_variables(database)
    given = server.pop("OPTIONS", {})
    made = strategy.settings(database, Chosen(database, development))
    options = {
        "connect_timeout": database.db_connect_timeout,
        **given,
        "options": f"-c statement_timeout={database.db_statement_timeout} {given.get('options', '')}".strip(),
        **made.pop("OPTIONS", {}),
    }
    return {"default": {**server, "ENGINE": strategy.engine, "OPTIONS": options, **made}}


def get_fleet(database: Database, web: Web, queue: Queue, *, development: bool) -> dict[str, tuple[int, int]]:
    """Say how many processes each service has, and how many connections each of them opens at most."""
    chosen = Chosen(database, development)
    is_pooled = database.db_strategy in ("poolhouse", "dj_db_conn_pool", "native")
    each_web = chosen.size + chosen.overflow if is_pooled else web.web_threads
    # The worker's main process may connect as well as its children.
    return {"web": (web.web_processes, each_web), "worker": (queue.worker_processes + 1, 1), "beat": (1, 1)}


def _use_driver(driver: str) -> None:
    """Let Django and SQLAlchemy find the wanted driver: both take psycopg 3 wherever it can be imported."""
    if driver == "psycopg2":
        sys.modules.setdefault("psycopg", None)  # type: ignore[arg-type]  # then importing it fails


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


class Chosen:
    """The pool's numbers; in development, their _DEV variants where those are set."""

    def __init__(self, database: Database, development: bool) -> None:
        self.size: int = self._choose(database, "db_max_conns", development)
        self.overflow: int = self._choose(database, "db_max_overflow", development)
        self.least: int = min(self._choose(database, "db_min_conns", development), self.size)
        self.recycle_s: int = self._choose(database, "db_pool_recycle", development)
        self.timeout_s: float = self._choose(database, "db_pool_timeout", development)

    @staticmethod
    def _choose(database: Database, name: str, development: bool) -> Any:
        variant = getattr(database, f"{name}_dev") if development else None
        return getattr(database, name) if variant is None else variant


def _plain_pooled(database: Database, chosen: Chosen) -> dict[str, Any]:
    return {
        # Anything else would let every thread keep a slot of the pool for good.
        "CONN_MAX_AGE": 0,
        "POOL_OPTIONS": {
            "POOL_SIZE": chosen.size,
            "MAX_OVERFLOW": chosen.overflow,
            "RECYCLE": chosen.recycle_s,
            "TIMEOUT": chosen.timeout_s,
            "PRE_PING": database.db_conn_health_checks,
        },
    }


def _pooled(database: Database, chosen: Chosen) -> dict[str, Any]:
    made = _plain_pooled(database, chosen)
    made["POOL_OPTIONS"]["MIN_SIZE"] = chosen.least
    return made


def _native(database: Database, chosen: Chosen) -> dict[str, Any]:
    pool = {
        "min_size": chosen.least,
        "max_size": chosen.size + chosen.overflow,
        "timeout": chosen.timeout_s,
        "max_lifetime": float("inf") if chosen.recycle_s < 0 else chosen.recycle_s,
    }
    return {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": database.db_conn_health_checks, "OPTIONS": {"pool": pool}}


def _persistent(database: Database, _: Chosen) -> dict[str, Any]:
    return {"CONN_MAX_AGE": database.db_conn_max_age, "CONN_HEALTH_CHECKS": database.db_conn_health_checks}


def _none(_: Database, __: Chosen) -> dict[str, Any]:
    return {"CONN_MAX_AGE": 0}


STRATEGIES: Mapping[str, Strategy] = {
    "poolhouse": Strategy(POOLED_ENGINE, "psycopg2", _pooled),
    "dj_db_conn_pool": Strategy(PLAIN_POOLED_ENGINE, "psycopg2", _plain_pooled),
    "native": Strategy(STANDARD_ENGINE, "psycopg", _native),
    "persistent": Strategy(STANDARD_ENGINE, "psycopg2", _persistent),
    "none": Strategy(STANDARD_ENGINE, "psycopg2", _none),
}
