"""Projects unlike the sandbox: another default database, no database, and prepared statements."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from django.db import connection

from config.env import CHECKOUT, Queue, read
from tests.conftest import DEADLINE_S
from tests.integration.test_engine import OURS

pytestmark = pytest.mark.django_db

STANDARD = "django.db.backends.postgresql"
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
BEGIN = """
import json, sys
import django
from django.conf import settings
databases = json.loads(sys.argv[1])
settings.configure(
    INSTALLED_APPS=["poolhouse"], DATABASES=databases, SECRET_KEY="x", ALLOWED_HOSTS=["*"],
    POOLHOUSE={"REDIS_URL": sys.argv[2], "KEY_PREFIX": "foreign", "MONITOR_TIMEOUT_S": 60},
)
django.setup()
from django.core.management import call_command
"""


def server(engine: str = STANDARD, **more: Any) -> dict[str, Any]:
    own = connection.settings_dict
    return {"ENGINE": engine, **{key: own[key] for key in ("NAME", "HOST", "PORT", "USER", "PASSWORD")}, **more}


def in_a_project(program: str, databases: dict[str, Any], *, status: int = 0) -> str:
    """Run a program in a project of its own; return its output."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "backend")}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    command = [sys.executable, "-W", "ignore", "-c", BEGIN + program, json.dumps(databases), read(Queue).url]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)
    assert answer.returncode == status, answer.stdout + answer.stderr
    return answer.stdout


LOOK = """
call_command("db_pool_status")
call_command("monitor_connection_pool")
from django.test import RequestFactory
from poolhouse.metrics.views import metrics
print(metrics(RequestFactory().get("/metrics")).content.decode())
from poolhouse.helpers import check_connection_health
print("healthy", check_connection_health("pg").is_healthy)
"""


@pytest.mark.parametrize("default", [SQLITE, {}])
@pytest.mark.parametrize("engine", [STANDARD, OURS])
def test_the_first_postgresql_alias_is_shown_if_the_default_is_another_database(
    default: dict[str, Any], engine: str
) -> None:
    said = in_a_project(LOOK, {"default": default, "pg": server(engine)})
    assert "room for" in said
    assert "(alias pg)" in said
    assert 'poolhouse_source_up{server="pg",source="server"} 1.0' in said
    assert said.endswith("healthy True\n")


def test_without_postgresql_nothing_is_shown() -> None:
    program = """
from django.core.management import CommandError
call_command("db_pool_status")
try:
    call_command("monitor_connection_pool")
except CommandError as error:
    print(error.returncode, error)
"""
    said = in_a_project(program, {"default": SQLITE})
    assert said.startswith("OK\n")
    assert "2 KeyError: \"expected the alias of a PostgreSQL database, got 'default'; allowed: none" in said


def test_helpers_reject_the_alias_of_another_database() -> None:
    program = """
from poolhouse.helpers import check_connection_health, get_connection_info, optimize_timescaledb_queries
for helper in (check_connection_health, get_connection_info, optimize_timescaledb_queries):
    try:
        helper("default")
    except KeyError as error:
        print(error.args[0])
"""
    said = in_a_project(program, {"default": SQLITE, "pg": server()})
    assert said.splitlines() == ["expected the alias of a PostgreSQL database, got 'default'; allowed: pg"] * 3


def test_settings_without_a_name_are_reported() -> None:
    nameless = {**server(), "NAME": ""}
    said = in_a_project('call_command("db_pool_status", fail_on="warning")', {"default": nameless}, status=2)
    assert said.startswith("CRITICAL\n  database server (default) is unreachable: settings.DATABASES is improperly")
    said = in_a_project('call_command("monitor_connection_pool", fail_on="warning")', {"default": nameless}, status=2)
    assert said.startswith("CRITICAL\n")


@pytest.mark.parametrize("options", [{"server_side_binding": True}, {"prepare_threshold": 0}, {}])
def test_a_managed_transaction_works_with_prepared_statements(options: dict[str, Any]) -> None:
    program = """
from django.db import connection
from poolhouse.helpers import managed_transaction
with managed_transaction(isolation="serializable", read_only=True, statement_timeout_ms=700, lock_timeout_ms=300):
    with connection.cursor() as cursor:
        for name in ("transaction_isolation", "transaction_read_only", "statement_timeout", "lock_timeout"):
            cursor.execute("SELECT current_setting(%s)", [name])
            print(*cursor.fetchone())
print(connection.Database.__name__)
"""
    said = in_a_project(program, {"default": server(OPTIONS=options)})
    assert said.splitlines() == ["serializable", "on", "700ms", "300ms", "psycopg"]
