"""The validation of POOLHOUSE: errors name the key, the value and what is allowed."""

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from poolhouse.conf import Options, options

NUMBERS = [key.name for key in fields(Options) if key.type in (int, float)]
OFF_AT_MINUS_1 = {"SLOW_QUERY_MS", "REQUEST_QUERIES", "SLOW_REQUEST_DATABASE_MS", "POOL_WAIT_MS", "POOL_HOLD_MS"}


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    options.cache_clear()
    yield
    options.cache_clear()


def refusal(settings: Settings, given: Any) -> str:
    settings.POOLHOUSE = given
    with pytest.raises(ImproperlyConfigured) as caught:
        options()
    options.cache_clear()
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (None, "expected a dictionary, got None"),
        ({"SERVCE": "web"}, "unknown key 'SERVCE'; did you mean SERVICE?"),
        (
            {"SERVICE": "the web"},
            "SERVICE: expected 1 to 24 letters, digits, dots, dashes or underscores, got 'the web'",
        ),
        ({"SERVICE": None}, "SERVICE: expected a string, got NoneType None"),
        (
            {"REPORT_TTL_S": 1.0, "PUBLISH_INTERVAL_S": 2.0},
            "REPORT_TTL_S=1.0 must be greater than PUBLISH_INTERVAL_S=2.0",
        ),
        ({"PUBLISH_INTERVAL_S": 0}, "PUBLISH_INTERVAL_S: expected a number from 0.1 to 86400, got 0"),
        ({"PUBLISH_INTERVAL_S": "1"}, "PUBLISH_INTERVAL_S: expected a number from 0.1 to 86400, got '1'"),
        ({"REPORT_TTL_S": math.inf}, "REPORT_TTL_S: expected a number from 0.1 to 604800, got inf"),
        ({"MONITOR_TIMEOUT_S": 0.5}, "MONITOR_TIMEOUT_S: expected a number from 1 to 600, got 0.5"),
        ({"MONITOR_TIMEOUT_S": "2"}, "MONITOR_TIMEOUT_S: expected a number from 1 to 600, got '2'"),
        (
            {"UTILISATION_CRITICAL_PERCENT": 101},
            "UTILISATION_CRITICAL_PERCENT: expected a number from 0 to 100, got 101",
        ),
        ({"REQUEST_QUERIES": 1.5}, "REQUEST_QUERIES: expected a whole number, -1 or more, got 1.5"),
        ({"SERVER_TIMING": 1}, "SERVER_TIMING: expected True or False, got 1"),
        ({"MONITOR_PASSWORD": b"sesame"}, "MONITOR_PASSWORD: expected a string, got bytes"),
        (
            {"REDIS_URL": "localhost:6379"},
            "REDIS_URL: expected a URL that begins with redis:// or rediss:// or unix://, got 'localhost:6379'",
        ),
        (
            {"REDIS_URL": "redis:localhost"},
            "REDIS_URL: expected a URL that begins with redis:// or rediss:// or unix://, got 'redis:localhost'",
        ),
        (
            {"REDIS_URL": "redis://h:many/0"},
            "REDIS_URL: expected a URL that begins with redis:// or rediss:// or unix://, got 'redis://h:many/0'",
        ),
        (
            {"REDIS_URL": "http://me:sesame@h"},
            "REDIS_URL: expected a URL that begins with redis:// or rediss:// or unix://, got '…@h'",
        ),
        (
            {"PGBOUNCER_URL": "host=h password=sesame@x"},
            "PGBOUNCER_URL: expected a URL that begins with postgresql:// or postgres://, got '…@x'",
        ),
        ({"FLEET": [1, 2]}, "FLEET: expected a dictionary, got [1, 2]"),
        ({"FLEET": {"web": (2,)}}, "FLEET['web']: expected two whole numbers, 0 or more"),
        ({"FLEET": {"web": (2, -1)}}, "FLEET['web']: expected two whole numbers, 0 or more"),
        ({"FLEET": {"web": (True, 1)}}, "FLEET['web']: expected two whole numbers, 0 or more"),
        ({"DIRECT": {"shop": {}}}, "DIRECT: expected aliases of DATABASES, got ['shop']; allowed: ['default']"),
        ({"DIRECT": {"default": "db"}}, "DIRECT['default']: expected a dictionary like DATABASES['default'], got 'db'"),
        ({"QUERY_CRITICAL_MS": 50}, "QUERY_CRITICAL_MS=50 must be QUERY_WARNING_MS=100.0 or more"),
    ],
)
def test_errors_name_the_key_the_value_and_what_is_allowed(settings: Settings, given: Any, problem: str) -> None:
    text = refusal(settings, given)
    assert text.startswith(f"POOLHOUSE: {problem}")
    assert "sesame" not in text


def test_all_problems_are_reported_at_once(settings: Settings) -> None:
    text = refusal(settings, {"PUBLISH_INTERVAL_S": 0, "METRICS_MAX_AGE_S": -1, "FLEE": {}})
    assert all(part in text for part in ("PUBLISH_INTERVAL_S: ", "METRICS_MAX_AGE_S: ", "did you mean FLEET?"))


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["1", None, True, math.nan, -2, -math.inf], ids=repr)
def test_numeric_settings_reject_other_types_and_negative_values(settings: Settings, name: str, value: Any) -> None:
    text = refusal(settings, {name: value})
    assert text.startswith(f"POOLHOUSE: {name}: expected a ")
    assert text.endswith(f", got {value!r}.")


@pytest.mark.parametrize("name", NUMBERS)
def test_minus_1_is_accepted_only_where_it_turns_something_off(settings: Settings, name: str) -> None:
    if name in OFF_AT_MINUS_1:
        settings.POOLHOUSE = {name: -1}
        assert getattr(options(), name) == -1
    else:
        assert refusal(settings, {name: -1}).endswith(", got -1.")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"REDIS_URL": "unix:///run/redis.sock?db=1", "PGBOUNCER_URL": "postgres://me:p%40ss@h:6432/pgbouncer"},
        {"REDIS_URL": "rediss://:secret@h:6379/0", "MONITOR_TIMEOUT_S": 1.5, "PUBLISH_INTERVAL_S": 2},
        {"QUERY_CRITICAL_MS": math.inf, "FLEET": {"web": [2, 10], "beat": (0, 0)}, "DIRECT": {"default": {"PORT": 1}}},
    ],
)
def test_valid_settings_are_accepted(settings: Settings, given: dict[str, Any]) -> None:
    settings.POOLHOUSE = given
    assert options() == Options(**given)
