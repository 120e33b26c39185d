"""DATABASES from the environment: the strategy, the server, and contradicting variables."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from config.database import (
    direct_config,
    fleet_of,
    get_console_url,
    get_database_config,
    get_database_settings,
    get_pgbouncer_config,
    get_pgbouncer_connections,
    get_strategy,
    numbers_of,
    pgbouncer_config,
    should_use_pgbouncer,
    strategy_of,
)
from config.env import CHECKOUT, BadEnvironment, Database, Monitor, Pooler, Queue, Web
from config.strategies import KEEPERS, POOLED_ENGINE, STANDARD_ENGINE, STRATEGIES, Feature
from poolhouse.engines.options import problems

ELSEWHERE = "postgresql://me:p%40ss@db.example:6000/shop"


def database_with(**variables: Any) -> Database:
    return Database.model_validate({"db_pass": "sesame", **variables})


def settings_of(*, development: bool = False, strategy: str = "queuepool", **variables: Any) -> dict[str, Any]:
    """Return the entry that connects directly."""
    return direct_config(STRATEGIES[strategy], database_with(**variables), development=development)


def through(strategy: str, *, pooler: dict[str, Any] | None = None, host: str = "", **variables: Any) -> dict[str, Any]:
    """Return the entry that connects through PgBouncer."""
    monitor = Monitor.model_validate({"pgbouncer_host": host, "pgbouncer_port": 6432})
    sizes = Pooler.model_validate(pooler or {})
    return pgbouncer_config(STRATEGIES[strategy], database_with(**variables), sizes, monitor, development=False)


def named_by(*, strategy: str, pooler: dict[str, Any], host: str = "", **variables: Any) -> str:
    database = database_with(db_pool_strategy=strategy, **variables)
    return strategy_of(database, Pooler.model_validate(pooler), Monitor.model_validate({"pgbouncer_host": host}))


def test_the_web_gets_the_pool_with_its_options() -> None:
    made = settings_of(db_max_conns=7, db_max_overflow=3, db_pool_recycle=60, db_pool_timeout=1.5)
    assert made["ENGINE"] == POOLED_ENGINE
    assert made["CONN_MAX_AGE"] == 0
    assert made["POOL_OPTIONS"] == {
        "POOL_SIZE": 7,
        "MAX_OVERFLOW": 3,
        "RECYCLE": 60,
        "TIMEOUT": 1.5,
        "PRE_PING": True,
        "MIN_SIZE": 2,
    }
    assert problems(made["POOL_OPTIONS"]) == []


def test_the_persistent_strategy_uses_the_standard_backend_without_a_pool() -> None:
    made = settings_of(strategy="persistent", db_conn_max_age=120, db_conn_health_checks=False)
    assert made["ENGINE"] == STANDARD_ENGINE
    assert "POOL_OPTIONS" not in made
    assert (made["CONN_MAX_AGE"], made["CONN_HEALTH_CHECKS"]) == (120, False)


def test_development_uses_the_dev_variants_that_are_set() -> None:
    variables: dict[str, Any] = {
        "db_max_conns": 20,
        "db_max_conns_dev": 4,
        "db_pool_timeout": 30,
        "db_pool_timeout_dev": None,
    }
    assert settings_of(development=True, **variables)["POOL_OPTIONS"]["POOL_SIZE"] == 4
    assert settings_of(development=True, **variables)["POOL_OPTIONS"]["TIMEOUT"] == 30
    assert settings_of(development=False, **variables)["POOL_OPTIONS"]["POOL_SIZE"] == 20


def test_a_dev_variant_of_zero_is_used() -> None:
    made = settings_of(development=True, db_max_overflow=10, db_max_overflow_dev=0)
    assert made["POOL_OPTIONS"]["MAX_OVERFLOW"] == 0


def test_a_url_replaces_the_variables_and_may_contain_options() -> None:
    made = settings_of(database_url="postgresql://me:p%40ss@db.example:6000/shop?sslmode=require", db_host="elsewhere")
    assert {key: made[key] for key in ("HOST", "PORT", "NAME", "USER", "PASSWORD")} == {
        "HOST": "db.example",
        "PORT": 6000,
        "NAME": "shop",
        "USER": "me",
        "PASSWORD": "p@ss",
    }
    assert made["OPTIONS"]["sslmode"] == "require"


@pytest.mark.parametrize("url", ["postgresql://me@one,two/shop", "postgresql://me@one"])
def test_a_url_without_one_host_and_a_database_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="one host and a database"):
        Database.model_validate({"database_url": url})


def test_timeouts_are_passed_to_the_server() -> None:
    options = settings_of(db_connect_timeout=3, db_statement_timeout=1500)["OPTIONS"]
    assert options["connect_timeout"] == 3
    assert options["options"] == "-c statement_timeout=1500"


def test_a_url_s_options_are_added_to_the_timeout_and_an_ipv6_address_loses_its_brackets() -> None:
    made = settings_of(database_url="postgresql://me@[::1]/shop?options=-c%20search_path%3Dapp", db_statement_timeout=9)
    assert made["HOST"] == "::1"
    assert made["OPTIONS"]["options"] == "-c statement_timeout=9 -c search_path=app"


# Rows.


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_name_of_a_strategy_matches_its_keeper_and_pool_mode(name: str) -> None:
    row = STRATEGIES[name]
    assert row.name == name
    assert row.keeper in KEEPERS
    assert (row.pool_mode is not None) == name.startswith("pgbouncer-")
    assert row.breaks >= KEEPERS[row.keeper].breaks, "what breaks in a part breaks in what has it"


@pytest.mark.parametrize("name", [name for name, row in STRATEGIES.items() if row.pool_mode])
def test_a_strategy_with_pgbouncer_has_its_address_and_the_database_name_of_its_pool_mode(name: str) -> None:
    made, mode = through(name), STRATEGIES[name].pool_mode
    assert (made["HOST"], made["PORT"], made["NAME"], made["USER"]) == (
        "127.0.0.1",
        6432,
        f"poolhouse_{mode}",
        "poolhouse",
    )
    assert made.get("DISABLE_SERVER_SIDE_CURSORS", False) == (Feature.CURSORS in STRATEGIES[name].breaks)
    assert "options" not in made["OPTIONS"], "PgBouncer refuses them"
    assert problems(made.get("POOL_OPTIONS", {})) == []


def test_the_url_of_pgbouncer_is_used_unchanged() -> None:
    url = {"pgbouncer_url": "postgresql://you:w%2Frd@pool:7000/anything?sslmode=require"}
    made = through("pgbouncer-transaction+native", pooler=url, host="elsewhere", database_url=ELSEWHERE)
    assert {key: made[key] for key in ("HOST", "PORT", "NAME", "USER", "PASSWORD")} == {
        "HOST": "pool",
        "PORT": 7000,
        "NAME": "anything",
        "USER": "you",
        "PASSWORD": "w/rd",
    }
    assert made["OPTIONS"]["sslmode"] == "require"
    assert made["OPTIONS"]["pool"]["max_size"] == 30


def test_pgbouncer_in_front_of_database_url_uses_its_role_and_the_database_name_with_the_pool_mode() -> None:
    made = through("pgbouncer-session", host="pool", database_url=ELSEWHERE)
    assert (made["HOST"], made["PORT"], made["NAME"], made["USER"]) == ("pool", 6432, "shop_session", "me")


def test_a_pool_behind_pgbouncer_does_not_reset_sessions() -> None:
    assert through("pgbouncer-transaction+queuepool")["POOL_OPTIONS"]["RESET"] == "never"
    assert "RESET" not in settings_of()["POOL_OPTIONS"]


# What the variables ask for together.


@pytest.mark.parametrize(
    ("strategy", "wanted", "named"),
    [
        ("none", True, "pgbouncer-transaction"),
        ("persistent", True, "pgbouncer-transaction+persistent"),
        ("queuepool", True, "pgbouncer-transaction+queuepool"),
        ("native", True, "pgbouncer-transaction+native"),
        ("pgbouncer-statement", True, "pgbouncer-statement"),
        ("pgbouncer-session+persistent", None, "pgbouncer-session+persistent"),
        ("native", None, "native"),
        ("native", False, "native"),
    ],
)
def test_use_pgbouncer_selects_the_strategy_with_pgbouncer(strategy: str, wanted: bool | None, named: str) -> None:
    assert named_by(strategy=strategy, pooler={"use_pgbouncer": wanted}) == named


POOL = "postgresql://me@pool/shop"


@pytest.mark.parametrize(
    ("strategy", "pooler", "variables", "reason"),
    [
        (
            "dj_db_conn_pool",
            {"use_pgbouncer": True},
            {},
            r"DB_POOL_STRATEGY='dj_db_conn_pool'.*none, persistent, queuepool",
        ),
        (
            "pgbouncer-session",
            {"use_pgbouncer": False},
            {},
            r"USE_PGBOUNCER=false.*Leave USE_PGBOUNCER empty.*to none\.",
        ),
        (
            "queuepool",
            {"pgbouncer_url": POOL},
            {},
            r"PGBOUNCER_URL is set.*'queuepool' does not connect.*Set USE_PGBOUNCER",
        ),
        ("persistent", {}, {"db_conn_max_age": 0}, r"DB_CONN_MAX_AGE=0.*or DB_POOL_STRATEGY to none"),
        (
            "pgbouncer-session",
            {},
            {"database_url": ELSEWHERE},
            r"server in DATABASE_URL no PgBouncer is configured.*PGBOUNCER_HOST",
        ),
        (
            "pgbouncer-session",
            {"pgbouncer_url": f"{POOL}?options=-c%20work_mem%3D1MB"},
            {},
            r"PGBOUNCER_URL contains \?options=.*ALTER ROLE",
        ),
        (
            "none",
            {"use_pgbouncer": True, "pgbouncer_url": POOL},
            {"database_url": f"{ELSEWHERE}?options=-c%20search_path%3Dapp"},
            r"DATABASE_URL contains \?options=.*ALTER ROLE",
        ),
    ],
)
def test_contradicting_variables_are_refused_with_the_reason_and_what_to_set(
    strategy: str, pooler: dict[str, Any], variables: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadEnvironment, match=reason):
        named_by(strategy=strategy, pooler=pooler, **variables)


def test_pgbouncer_url_is_accepted_with_use_pgbouncer_false() -> None:
    assert named_by(strategy="queuepool", pooler={"use_pgbouncer": False, "pgbouncer_url": POOL}) == "queuepool"


def test_a_missing_driver_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.database.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "psycopg", raising=False)
    with pytest.raises(BadEnvironment, match="'native' needs the driver psycopg, which is not installed"):
        named_by(strategy="native", pooler={})
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as a turn of psycopg2's hides it
    assert named_by(strategy="native", pooler={}) == "native"


def test_a_pgbouncer_url_without_a_database_is_refused() -> None:
    with pytest.raises(ValueError, match="one host and a database"):
        Pooler.model_validate({"pgbouncer_url": "postgresql://me@pool:6432"})


@pytest.mark.parametrize(
    ("strategy", "front"),
    [
        ("queuepool", {"web": (2, 30)}),
        ("persistent", {"web": (2, 8)}),
        ("pgbouncer-transaction+native", {"web": (2, 0)}),
    ],
)
def test_the_fleet_lists_the_direct_connections_of_each_service(
    strategy: str, front: dict[str, tuple[int, int]]
) -> None:
    numbers = numbers_of(database_with(), development=False)
    queue = Queue.model_validate({"redis_password": "sesame"})
    fleet = fleet_of(STRATEGIES[strategy], Web.model_validate({}), queue, numbers)
    assert fleet == {**front, "worker": (3, 1), "beat": (1, 1)}


# In a process.


def test_the_functions_without_arguments_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_POOL_STRATEGY", "persistent")
    monkeypatch.setenv("USE_PGBOUNCER", "true")
    monkeypatch.setenv("CELERY_WORKER_RUNNING", "")
    assert (get_strategy(), should_use_pgbouncer()) == ("pgbouncer-transaction+persistent", True)
    assert get_database_settings() == {"default": get_pgbouncer_config()}
    assert get_pgbouncer_config()["NAME"] == "poolhouse_transaction"
    assert get_database_config()["NAME"] == "poolhouse"
    assert "@127.0.0.1:" in get_console_url()
    assert get_pgbouncer_connections() == 25
    monkeypatch.setenv("CELERY_WORKER_RUNNING", "1")
    assert should_use_pgbouncer() is False
    assert get_database_settings() == {"default": get_database_config()}
    monkeypatch.setenv("USE_PGBOUNCER", "false")
    assert get_strategy() == "persistent"
    assert (get_console_url(), get_pgbouncer_connections()) == ("", 0)
    assert get_pgbouncer_config()["NAME"] == "poolhouse_transaction", "it says what would be"


REPORT = """
import json
from config.start import start
start({service!r})
from config.database import get_database_settings
print(json.dumps(get_database_settings()["default"]))
"""


def started_as(service: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "CELERY_WORKER_RUNNING": "", "SERVICE_NAME": "shop", **variables}
    command = [sys.executable, "-c", REPORT.format(service=service)]
    return subprocess.run(command, cwd=CHECKOUT / "backend", env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("service", "variables", "name"),
    [
        ("web", {}, "poolhouse_statement"),
        ("manage", {}, "poolhouse"),
        ("worker", {"CELERY_WORKER_RUNNING": "1"}, "poolhouse"),
    ],
)
def test_only_the_web_connects_through_pgbouncer_whatever_its_service_name(
    service: str, variables: dict[str, str], name: str
) -> None:
    answer = started_as(service, DB_POOL_STRATEGY="pgbouncer-statement", **variables)
    assert answer.returncode == 0, answer.stderr
    made = json.loads(answer.stdout)
    assert made["NAME"] == name
    assert ("options" in made["OPTIONS"]) == (service != "web")


COMMAND = """
import json, runpy, sys
sys.argv = ["manage.py", {command!r}, "--help"]
try:
    runpy.run_path("manage.py", run_name="__main__")
except SystemExit as end:
    assert end.code == 0
from config.database import get_database_settings
print()
print(json.dumps(get_database_settings()["default"]["NAME"]))
"""


@pytest.mark.parametrize(("command", "name"), [("runserver", "poolhouse_statement"), ("migrate", "poolhouse")])
def test_runserver_connects_as_the_web_and_other_commands_directly(command: str, name: str) -> None:
    environment = os.environ | {"CELERY_WORKER_RUNNING": "", "DB_POOL_STRATEGY": "pgbouncer-statement"}
    said = subprocess.check_output(
        [sys.executable, "-c", COMMAND.format(command=command)], cwd=CHECKOUT / "backend", env=environment, text=True
    )
    assert json.loads(said.splitlines()[-1]) == name


@pytest.mark.parametrize(
    ("service", "variables", "options"),
    [
        ("web", {}, "-c statement_timeout=1500"),
        ("worker", {"CELERY_WORKER_RUNNING": "1"}, "-c statement_timeout=1500"),
        ("manage", {}, "-c statement_timeout=0"),
        ("manage", {"CELERY_WORKER_RUNNING": "1"}, "-c statement_timeout=0"),
        (
            "manage",
            {"DATABASE_URL": f"{ELSEWHERE}?options=-c%20statement_timeout%3D9"},
            "-c statement_timeout=0 -c statement_timeout=9",
        ),
    ],
)
def test_a_command_has_no_statement_timeout_unless_the_url_sets_one(
    service: str, variables: dict[str, str], options: str
) -> None:
    answer = started_as(service, DB_POOL_STRATEGY="none", DB_STATEMENT_TIMEOUT="1500", **variables)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["OPTIONS"]["options"] == options


def test_contradicting_variables_stop_a_process_before_it_starts_anything() -> None:
    answer = started_as("web", DB_POOL_STRATEGY="dj_db_conn_pool", USE_PGBOUNCER="true")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "that pool is not tested in front of PgBouncer" in answer.stderr
    assert "Traceback" not in answer.stderr


# TLS to the server and to PgBouncer.


@pytest.mark.parametrize("strategy", ["queuepool", "native", "persistent"])
def test_connections_to_the_server_use_its_tls_settings(strategy: str) -> None:
    made = settings_of(strategy=strategy, db_sslmode="verify-full", db_sslrootcert="/etc/ca.crt")["OPTIONS"]
    assert (made["sslmode"], made["sslrootcert"]) == ("verify-full", "/etc/ca.crt")
    assert not {"sslmode", "sslrootcert"} & set(settings_of(strategy=strategy)["OPTIONS"])


def test_tls_settings_in_a_url_override_the_variables() -> None:
    url = f"{ELSEWHERE}?sslmode=require"
    assert settings_of(database_url=url, db_sslmode="disable")["OPTIONS"]["sslmode"] == "require"
    assert settings_of(database_url=ELSEWHERE, db_sslmode="disable")["OPTIONS"]["sslmode"] == "disable"


def test_connections_to_pgbouncer_use_its_tls_settings_and_not_the_server_s(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, ca = "pgbouncer-transaction", "/etc/ca.crt"
    made = through(strategy, db_sslmode="verify-full", db_sslrootcert=ca)["OPTIONS"]
    assert (made.get("sslmode"), made["sslrootcert"]) == (None, ca)
    variables = {"DB_SSLROOTCERT": ca, "PGBOUNCER_SSLMODE": "verify-full", "PGBOUNCER_HOST": "pooler"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CELERY_WORKER_RUNNING")
    monkeypatch.setenv("DB_POOL_STRATEGY", strategy)
    assert get_pgbouncer_config()["OPTIONS"]["sslmode"] == "verify-full"
    assert get_console_url().endswith("/pgbouncer?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.crt")


def test_verifying_a_certificate_requires_an_authority() -> None:
    with pytest.raises(ValueError, match="DB_SSLMODE=verify-full requires DB_SSLROOTCERT"):
        database_with(db_sslmode="verify-full")
