"""POOLHOUSE in a project's settings: what is refused, with the key, the value and what is allowed."""

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
        (None, "it is None, and must be a dictionary"),
        ({"SERVCE": "web"}, "unknown key 'SERVCE'; did you mean SERVICE?"),
        ({"SERVICE": "the web"}, "SERVICE='the web' must be 1 to 24 letters"),
        ({"SERVICE": None}, "SERVICE=None must be text, and is NoneType"),
        ({"REPORT_TTL_S": 1.0, "PUBLISH_INTERVAL_S": 2.0}, "REPORT_TTL_S=1.0 must be more than PUBLISH_INTERVAL_S=2.0"),
        ({"PUBLISH_INTERVAL_S": 0}, "PUBLISH_INTERVAL_S=0 must be a number, from 0.1 to 86400"),
        ({"PUBLISH_INTERVAL_S": "1"}, "PUBLISH_INTERVAL_S='1' must be a number, from 0.1 to 86400"),
        ({"REPORT_TTL_S": math.inf}, "REPORT_TTL_S=inf must be a number, from 0.1 to 604800"),
        ({"MONITOR_TIMEOUT_S": 0.5}, "MONITOR_TIMEOUT_S=0.5 must be a number, from 1 to 600"),
        ({"MONITOR_TIMEOUT_S": "2"}, "MONITOR_TIMEOUT_S='2' must be a number, from 1 to 600"),
        ({"UTILISATION_CRITICAL_PERCENT": 101}, "UTILISATION_CRITICAL_PERCENT=101 must be a number, from 0 to 100"),
        ({"REQUEST_QUERIES": 1.5}, "REQUEST_QUERIES=1.5 must be a whole number, -1 or more"),
        ({"SERVER_TIMING": 1}, "SERVER_TIMING=1 must be True or False"),
        ({"MONITOR_PASSWORD": b"sesame"}, "MONITOR_PASSWORD must be text, and is bytes"),
        ({"REDIS_URL": "localhost:6379"}, "REDIS_URL='localhost:6379' must be a URL that begins with redis:// or"),
        ({"REDIS_URL": "redis:localhost"}, "REDIS_URL='redis:localhost' must be a URL"),
        ({"REDIS_URL": "redis://h:many/0"}, "REDIS_URL='redis://h:many/0' must be a URL"),
        ({"REDIS_URL": "http://me:sesame@h"}, "REDIS_URL='…@h' must be a URL"),
        ({"PGBOUNCER_URL": "host=h password=sesame@x"}, "PGBOUNCER_URL='…@x' must be a URL that begins with postgres"),
        ({"FLEET": [1, 2]}, "FLEET=[1, 2] must be a dictionary"),
        ({"FLEET": {"web": (2,)}}, "FLEET['web']=(2,) must be two whole numbers, 0 or more"),
        ({"FLEET": {"web": (2, -1)}}, "FLEET['web']=(2, -1) must be two whole numbers, 0 or more"),
        ({"FLEET": {"web": (True, 1)}}, "FLEET['web']=(True, 1) must be two whole numbers"),
        ({"DIRECT": {"shop": {}}}, "DIRECT has ['shop'], no aliases of DATABASES; allowed: ['default']"),
        ({"DIRECT": {"default": "db"}}, "DIRECT['default']='db' must be a dictionary"),
        ({"QUERY_CRITICAL_MS": 50}, "QUERY_CRITICAL_MS=50 must not be less than QUERY_WARNING_MS=100.0"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_value_and_what_is_allowed(
    settings: Settings, given: Any, problem: str
) -> None:
    text = refusal(settings, given)
    assert text.startswith(f"POOLHOUSE: {problem}")
    assert "sesame" not in text


def test_everything_that_is_wrong_is_told_at_once(settings: Settings) -> None:
    text = refusal(settings, {"PUBLISH_INTERVAL_S": 0, "METRICS_MAX_AGE_S": -1, "FLEE": {}})
    assert all(part in text for part in ("PUBLISH_INTERVAL_S=0", "METRICS_MAX_AGE_S=-1", "did you mean FLEET?"))


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["1", None, True, math.nan, -2, -math.inf], ids=repr)
def test_no_number_is_taken_that_is_none_or_below_every_bound(settings: Settings, name: str, value: Any) -> None:
    assert refusal(settings, {name: value}).startswith(f"POOLHOUSE: {name}={value!r} must be a ")


@pytest.mark.parametrize("name", NUMBERS)
def test_minus_1_is_taken_where_it_turns_something_off(settings: Settings, name: str) -> None:
    if name in OFF_AT_MINUS_1:
        settings.POOLHOUSE = {name: -1}
        assert getattr(options(), name) == -1
    else:
        assert f"{name}=-1 must be" in refusal(settings, {name: -1})


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"REDIS_URL": "unix:///run/redis.sock?db=1", "PGBOUNCER_URL": "postgres://me:p%40ss@h:6432/pgbouncer"},
        {"REDIS_URL": "rediss://:secret@h:6379/0", "MONITOR_TIMEOUT_S": 1.5, "PUBLISH_INTERVAL_S": 2},
        {"QUERY_CRITICAL_MS": math.inf, "FLEET": {"web": [2, 10], "beat": (0, 0)}, "DIRECT": {"default": {"PORT": 1}}},
    ],
)
def test_what_makes_sense_is_read(settings: Settings, given: dict[str, Any]) -> None:
    settings.POOLHOUSE = given
    assert options() == Options(**given)
