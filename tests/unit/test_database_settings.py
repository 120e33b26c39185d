"""DATABASES from the environment."""

from typing import Any

import pytest

from config.database import POOLED_ENGINE, STANDARD_ENGINE, get_database_settings
from config.env import Database
from poolhouse.engines.options import problems


def settings_of(*, development: bool = False, worker: bool = False, **variables: Any) -> dict[str, Any]:
    database = Database.model_validate({"db_pass": "sesame", **variables})
    made: dict[str, Any] = get_database_settings(database, development=development, celery_worker_running=worker)[
        "default"
    ]
    return made


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


def test_a_celery_process_gets_the_standard_backend_and_no_pool() -> None:
    made = settings_of(worker=True, db_conn_max_age=120, db_conn_health_checks=False)
    assert made["ENGINE"] == STANDARD_ENGINE
    assert "POOL_OPTIONS" not in made
    assert (made["CONN_MAX_AGE"], made["CONN_HEALTH_CHECKS"]) == (120, False)


def test_development_takes_the_variants_that_are_set() -> None:
    variables: dict[str, Any] = {
        "db_max_conns": 20,
        "db_max_conns_dev": 4,
        "db_pool_timeout": 30,
        "db_pool_timeout_dev": None,
    }
    assert settings_of(development=True, **variables)["POOL_OPTIONS"]["POOL_SIZE"] == 4
    assert settings_of(development=True, **variables)["POOL_OPTIONS"]["TIMEOUT"] == 30
    assert settings_of(development=False, **variables)["POOL_OPTIONS"]["POOL_SIZE"] == 20


def test_zero_is_a_value_of_a_variant() -> None:
    made = settings_of(development=True, db_max_overflow=10, db_max_overflow_dev=0)
    assert made["POOL_OPTIONS"]["MAX_OVERFLOW"] == 0


def test_a_url_replaces_the_variables_and_may_carry_options() -> None:
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
def test_a_url_names_one_host_and_a_database(url: str) -> None:
    with pytest.raises(ValueError, match="one host and a database"):
        Database.model_validate({"database_url": url})


def test_timeouts_reach_the_server() -> None:
    options = settings_of(db_connect_timeout=3, db_statement_timeout=1500)["OPTIONS"]
    assert options["connect_timeout"] == 3
    assert options["options"] == "-c statement_timeout=1500"


def test_a_url_s_options_are_added_to_the_timeout_and_an_ipv6_address_loses_its_brackets() -> None:
    made = settings_of(database_url="postgresql://me@[::1]/shop?options=-c%20search_path%3Dapp", db_statement_timeout=9)
    assert made["HOST"] == "::1"
    assert made["OPTIONS"]["options"] == "-c statement_timeout=9 -c search_path=app"
