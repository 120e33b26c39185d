"""The environment of a test run, with its own ports, passwords and data.

It is loaded by name (`-p tests.plugin`), because pytest-django reads Django's settings before it loads a conftest.
"""

import os
from collections.abc import Iterator

import pytest

from sandbox.isolation import free_ports, isolate, isolated_servers, superuser_sql

isolate("tests")
# Long, because on a busy machine an answer takes time; tests about a source that hangs set it themselves.
os.environ["POOLHOUSE_MONITOR_TIMEOUT_S"] = "60"

from sandbox.servers import Place  # noqa: E402 - reads the environment

__all__ = ["free_ports", "servers", "superuser_sql"]


@pytest.fixture(scope="session")
def servers() -> Iterator[Place]:
    """Run PostgreSQL with TimescaleDB, and Redis; if a server does not start, the tests fail and are not skipped."""
    with isolated_servers() as place:
        # The application's role creates the test databases, as copies of template1.
        superuser_sql("ALTER ROLE poolhouse CREATEDB")
        superuser_sql("CREATE EXTENSION IF NOT EXISTS timescaledb", database="template1")
        # The data need not survive a crash.
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            superuser_sql(f"ALTER SYSTEM SET {setting} = off")
        superuser_sql("SELECT pg_reload_conf()")
        yield place
