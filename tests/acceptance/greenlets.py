"""A project of a few pages on the pooled engine, for gunicorn's gevent workers."""

import sys
from typing import Any


def make(driver: str, is_cooperative: bool, database: dict[str, Any], pool: dict[str, Any]) -> Any:
    """Give the application; called in a worker, which gevent has patched.

    Args:
        driver: psycopg2 or psycopg.
        is_cooperative: let psycopg2 wait as docs/app/engine.md has it; psycopg 3 does so by itself.
        database: HOST and the others.
        pool: POOL_OPTIONS.
    """
    sys.modules["psycopg" if driver == "psycopg2" else "psycopg2"] = None  # type: ignore[assignment]
    if is_cooperative:
        _let_psycopg2_wait()

    from django.conf import settings
    from django.core.wsgi import get_wsgi_application

    settings.configure(
        DATABASES={"default": {"ENGINE": "poolhouse.engines.postgresql", "POOL_OPTIONS": pool, **database}},
        INSTALLED_APPS=["poolhouse"],
        MIDDLEWARE=["poolhouse.middleware.DatabaseMiddleware"],
        ROOT_URLCONF="tests.acceptance.greenlets_pages",
        ALLOWED_HOSTS=["*"],
        POOLHOUSE={"PUBLISH_INTERVAL_S": 0.2},
    )
    return get_wsgi_application()


def _let_psycopg2_wait() -> None:
    from gevent.socket import wait_read, wait_write
    from psycopg2 import OperationalError, extensions

    def wait(connection: "extensions.connection") -> None:
        while (state := connection.poll()) != extensions.POLL_OK:
            if state == extensions.POLL_READ:
                wait_read(connection.fileno())
            elif state == extensions.POLL_WRITE:
                wait_write(connection.fileno())
            else:
                raise OperationalError(f"libpq waits for something unknown: {state!r}")

    extensions.set_wait_callback(wait)
