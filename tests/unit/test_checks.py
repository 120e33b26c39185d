"""The system checks of settings: each message with its id, and none for valid settings."""

from typing import Any

import pytest
from celery import Celery
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from pytest_django import Settings

from poolhouse import tasks
from poolhouse.checks import check_settings
from poolhouse.conf import options
from poolhouse.engines.options import NAMES

OURS = "poolhouse.engines.postgresql"
PLAIN = "dj_db_conn_pool.backends.postgresql"
STANDARD = "django.db.backends.postgresql"
NATIVE = {"ENGINE": STANDARD, "OPTIONS": {"pool": True}}


@pytest.fixture(autouse=True)
def _without_celery_s_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave as a project without Celery, whatever other tests have loaded."""
    monkeypatch.setattr(tasks, "current_app", Celery("default", set_as_current=False))


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Return the messages about one database."""

    def of(*asked: str, **database: Any) -> list[checks.CheckMessage]:
        monkeypatch.setattr(connections, "settings", {"shop": {"OPTIONS": {}, **database}})
        return check_settings(None, databases=asked)

    return of


@pytest.fixture
def pgbouncer(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    url = "postgresql://me@localhost:6000/pgbouncer"
    settings.POOLHOUSE = {**settings.POOLHOUSE, "PGBOUNCER_URL": url, "DIRECT": {"shop": {"PORT": 5432}}}
    monkeypatch.setitem(settings.DATABASES, "shop", {})  # DIRECT names it
    options.cache_clear()
    yield
    options.cache_clear()


def ids(messages: list[checks.CheckMessage]) -> list[str | None]:
    return [message.id for message in messages]


@pytest.mark.parametrize("engine", [OURS, PLAIN, STANDARD, "django.db.backends.sqlite3"])
def test_valid_settings_give_no_messages(say: Any, engine: str) -> None:
    assert say(ENGINE=engine, CONN_MAX_AGE=0) == []


def test_the_settings_of_the_sandbox_pass() -> None:
    assert check_settings(None) == []


@pytest.mark.parametrize(
    ("engine", "given", "problem"),
    [
        (OURS, {"POOLSIZE": 5}, "unknown key 'POOLSIZE'; did you mean POOL_SIZE?"),
        (OURS, {"POOL_SIZE": "5"}, "POOL_SIZE: expected a whole number, got '5'"),
        (PLAIN, {"pool_size": 5}, f"{PLAIN} ignores the unknown key 'pool_size'"),
        (PLAIN, {"MIN_SIZE": 5}, f"{PLAIN} ignores the unknown key 'MIN_SIZE'"),
        (PLAIN, {"TIMEOUT": -1}, "TIMEOUT: expected a number greater than 0, got -1"),
        (STANDARD, {"POOL_SIZE": 5}, f"{STANDARD} ignores POOL_OPTIONS"),
    ],
)
def test_pool_options_that_are_ignored_or_invalid_are_errors(
    say: Any, engine: str, given: dict[str, Any], problem: str
) -> None:
    (message,) = say(ENGINE=engine, POOL_OPTIONS=given)
    assert (message.id, message.level) == ("poolhouse.E001", checks.ERROR)
    assert message.msg == f"DATABASES['shop']['POOL_OPTIONS']: {problem}."
    assert message.hint


def test_the_options_of_this_engine_are_errors_with_other_engines(say: Any) -> None:
    given = {"MIN_SIZE": 1, "USE_LIFO": True, "RESET": "always", "PING_IDLE_S": 2}
    assert set(given) <= set(NAMES)
    assert say(ENGINE=OURS, POOL_OPTIONS=given) == []
    assert ids(say(ENGINE=PLAIN, POOL_OPTIONS=given)) == ["poolhouse.E001"] * 4


@pytest.mark.parametrize("database", [{"ENGINE": OURS}, {"ENGINE": PLAIN}, NATIVE])
@pytest.mark.parametrize("age", [60, None])
def test_a_pool_with_conn_max_age_is_an_error(say: Any, database: dict[str, Any], age: int | None) -> None:
    (message,) = say(**database, CONN_MAX_AGE=age)
    assert (message.id, message.level) == ("poolhouse.E002", checks.ERROR)
    assert f"CONN_MAX_AGE={age}" in message.msg


@pytest.mark.usefixtures("pgbouncer")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_server_side_cursors_behind_pgbouncer_are_an_info_without_check_database(say: Any, host: str) -> None:
    way = {"ENGINE": STANDARD, "HOST": host, "PORT": 6000}
    (message,) = say(**way)
    assert (message.id, message.level) == ("poolhouse.I003", checks.INFO)
    assert "check --database shop" in message.hint
    assert say("shop", **way) == []
    assert say(**way, DISABLE_SERVER_SIDE_CURSORS=True) == []
    assert say(**{**way, "PORT": 5432}) == []
    assert say(**{**way, "HOST": "elsewhere"}) == []


@pytest.mark.usefixtures("pgbouncer")
def test_a_monitor_behind_pgbouncer_is_a_warning_that_names_the_setting(say: Any, settings: Settings) -> None:
    way = {"ENGINE": STANDARD, "HOST": "localhost", "PORT": 6000, "DISABLE_SERVER_SIDE_CURSORS": True}
    assert say(**way) == [], "DIRECT has the server"
    settings.POOLHOUSE = {**settings.POOLHOUSE, "DIRECT": {}}
    options.cache_clear()
    (message,) = say(**way)
    assert (message.id, message.level) == ("poolhouse.W008", checks.WARNING)
    assert message.hint.startswith("Set POOLHOUSE['DIRECT'] = {'shop': {'HOST': …, 'PORT': …}}")
    assert say("shop", **way) == [], "check --database asks the server"


@pytest.mark.parametrize(
    ("database", "pool", "expected"),
    [
        ({"ENGINE": PLAIN}, "prefork", ["poolhouse.W006"]),
        (NATIVE, "prefork", ["poolhouse.W006"]),
        (NATIVE, "threads", []),
        ({"ENGINE": OURS}, "prefork", []),
        ({"ENGINE": STANDARD}, "prefork", []),
    ],
)
def test_a_pool_in_a_prefork_worker_is_a_warning(
    say: Any, monkeypatch: pytest.MonkeyPatch, database: dict[str, Any], pool: str, expected: list[str]
) -> None:
    app = Celery("shop", set_as_current=False)
    app.conf.worker_pool = pool
    monkeypatch.setattr(tasks, "current_app", app)
    assert ids(say(**database)) == expected


@pytest.mark.parametrize("numbers", [5, (1, 2, 3), ("2", "10"), (True, 1)])
def test_fleet_accepts_pairs_of_whole_numbers_only(settings: Settings, numbers: Any) -> None:
    settings.POOLHOUSE = {**settings.POOLHOUSE, "FLEET": {"web": numbers}}
    options.cache_clear()
    try:
        with pytest.raises(ImproperlyConfigured, match=r"FLEET\['web'\]: expected two whole numbers"):
            options()
    finally:
        options.cache_clear()


def test_direct_accepts_aliases_of_databases_only(settings: Settings) -> None:
    settings.POOLHOUSE = {**settings.POOLHOUSE, "DIRECT": {"defualt": {"HOST": "db"}}}
    options.cache_clear()
    try:
        with pytest.raises(
            ImproperlyConfigured,
            match=r"DIRECT: expected aliases of DATABASES, got \['defualt'\]; allowed: \['default'\]",
        ):
            options()
    finally:
        options.cache_clear()


@pytest.mark.parametrize(
    ("host", "port", "goes"),
    [
        ("localhost", 6000, True),
        ("db,127.0.0.1", "5432,6000", True),
        ("db,127.0.0.1", "6000", True),
        ("db,127.0.0.1", "6000,5432", False),
        ("db", "6000", False),
        (None, None, False),
    ],
)
@pytest.mark.usefixtures("pgbouncer")
def test_pgbouncer_is_recognized_among_several_addresses(say: Any, host: Any, port: Any, goes: bool) -> None:
    assert ids(say(ENGINE=STANDARD, HOST=host, PORT=port)) == (["poolhouse.I003"] if goes else [])
