"""A test run's own environment, made before Django reads its settings: ports, passwords and data that nobody shares.

It is loaded by name (`-p tests.plugin`), because pytest-django reads the settings before any conftest is.
"""

import os
from collections.abc import Iterator

import pytest

from sandbox.isolation import free_ports, isolate, isolated_servers, superuser_sql

isolate("tests")
# A test that is not about a source that hangs waits for it: on a busy machine an answer takes its time.
os.environ["POOLHOUSE_MONITOR_TIMEOUT_S"] = "60"

from sandbox.servers import Place  # noqa: E402 - it reads the environment

__all__ = ["free_ports", "servers", "superuser_sql"]


@pytest.fixture(scope="session")
def servers() -> Iterator[Place]:
    """PostgreSQL with TimescaleDB, and Redis, for this run; one that cannot start is a failure, not a skip."""
    with isolated_servers() as place:
        # The application's role makes the test databases, which begin as copies of template1.
        superuser_sql("ALTER ROLE poolhouse CREATEDB")
        superuser_sql("CREATE EXTENSION IF NOT EXISTS timescaledb", database="template1")
        # What they hold need not outlive them.
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            superuser_sql(f"ALTER SYSTEM SET {setting} = off")
        superuser_sql("SELECT pg_reload_conf()")
        yield place
