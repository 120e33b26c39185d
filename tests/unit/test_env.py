"""The environment: what is read, what is refused, and that .env.example lists all of it."""

import re
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from config.env import (
    CHECKOUT,
    SECTIONS,
    BadEnvironment,
    Database,
    Deployment,
    Https,
    Ingest,
    Monitor,
    Pooler,
    Queue,
    Section,
    Web,
    read,
)


def as_written(default: Any) -> str:
    """The form that a default has in .env.example."""
    match default:
        case None | SecretStr():
            return ""
        case bool():
            return str(default).lower()
        case list():
            return ",".join(default)
        case float() if default == int(default):
            return str(int(default))
        case _:
            return "" if default is PydanticUndefined else str(default)


def test_env_example_lists_every_variable_with_its_default_in_the_order_of_the_sections() -> None:
    listed = dict(re.findall(r"^([A-Z_]+)=(.*)$", (CHECKOUT / ".env.example").read_text(), re.MULTILINE))
    expected = {
        name.upper(): as_written(field.default) for section in SECTIONS for name, field in section.model_fields.items()
    }
    assert listed == expected, "correct .env.example: it must have the variables and defaults of config/env.py"
    assert list(listed) == list(expected), "correct .env.example: it must have the order of config/env.py"


def test_env_example_describes_every_variable_as_config_env_does() -> None:
    written = re.findall(r"^# (.*)\n([A-Z_]+)=", (CHECKOUT / ".env.example").read_text(), re.MULTILINE)
    described = [
        (field.description, name.upper()) for section in SECTIONS for name, field in section.model_fields.items()
    ]
    assert written == described, "correct .env.example: above each variable stands its description of config/env.py"


def test_compose_has_the_defaults_of_config_env() -> None:
    defaults = {
        name.upper(): as_written(field.default) for section in SECTIONS for name, field in section.model_fields.items()
    }
    compose = (CHECKOUT / "docker-compose.dev.yml").read_text()
    given = re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", compose)
    assert given
    for name, value in given:
        assert value in ("", defaults[name]), (
            f"correct docker-compose.dev.yml: {name} is {defaults[name]} in config/env.py"
        )


@pytest.mark.parametrize("section", SECTIONS)
def test_env_example_has_a_heading_for_each_section_with_its_readers(section: type[Section]) -> None:
    heading = f"# --- {(section.__doc__ or '').rstrip('.')}: read by {section.read_by}\n"
    assert heading in (CHECKOUT / ".env.example").read_text()


@pytest.mark.parametrize(
    ("section", "name", "value", "allowed"),
    [
        (Database, "DB_MAX_CONNS", "many", "expected a whole number from 1 to 10000"),
        (Database, "DB_MAX_CONNS", "0", "expected a whole number from 1 to 10000"),
        (Database, "DB_MAX_CONNS_DEV", "0", "expected a whole number from 1 to 10000"),
        (Database, "DB_PORT", "65536", "expected a whole number from 1 to 65535"),
        (Database, "DB_POOL_TIMEOUT", "-1", "expected a number above 0"),
        (Database, "DB_POOL_TIMEOUT_DEV", "0", "expected a number above 0"),
        (Database, "DB_POOL_TIMEOUT", "inf", "expected a number above 0"),
        (Database, "DB_POOL_RECYCLE", "-2", "expected a whole number of at least -1"),
        (Database, "DB_CONN_HEALTH_CHECKS", "perhaps", "expected true or false"),
        (Deployment, "POOLHOUSE_MONITOR_TIMEOUT_S", "0", "expected a number from 1 to 600"),
        (Deployment, "POOLHOUSE_MONITOR_TIMEOUT_S", "nan", "expected a number from 1 to 600"),
        (Deployment, "DJANGO_ENV", "staging", "expected 'development' or 'production'"),
        (Deployment, "SERVICE_NAME", "web/1", "expected text that matches ^[A-Za-z0-9_.-]{0,24}$"),
        (Web, "WEB_THREADS", "1.5", "expected a whole number from 1 to 10000"),
        (Database, "DB_POOL_STRATEGY", "poolhouse", "one of none, persistent, queuepool, dj_db_conn_pool, native, pgb"),
        (Pooler, "USE_PGBOUNCER", "perhaps", "expected true or false"),
        (Https, "CSRF_TRUSTED_ORIGINS", "poolhouse.example", "expected a scheme and a host"),
        (Https, "SECURE_PROXY_SSL_HEADER", "X-Forwarded-Proto: https", "expected text that matches"),
        (Database, "DB_SSLMODE", "always", "'verify-ca' or 'verify-full'"),
        (Pooler, "PGBOUNCER_POOL_SIZE", "0", "expected a whole number from 1 to 10000"),
    ],
)
def test_a_bad_value_is_refused_with_its_variable_its_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, section: type[Section], name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadEnvironment) as refused:
        read(section)
    assert f"{name}={value!r}" in str(refused.value)
    assert allowed in str(refused.value)


def test_every_bad_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_MAX_CONNS", "many")
    monkeypatch.setenv("DB_MAX_OVERFLOW", "-2")
    with pytest.raises(BadEnvironment, match=r"(?s)DB_MAX_CONNS.*DB_MAX_OVERFLOW"):
        read(Database)


@pytest.mark.parametrize(
    ("section", "name"), [(Database, "DB_PASS"), (Queue, "REDIS_PASSWORD"), (Deployment, "SECRET_KEY")]
)
def test_no_secret_has_a_usable_default(monkeypatch: pytest.MonkeyPatch, section: type[Section], name: str) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(BadEnvironment, match=rf"{name} is not set.*scripts/env"):
        read(section)


@pytest.mark.parametrize(
    ("section", "name", "value", "expected"),
    [
        (Deployment, "SECRET_KEY", "short", "expected at least 32 characters"),
        (Database, "DATABASE_URL", "sesame", "expected a URL (relative URL without a base)"),
        (Queue, "CELERY_BROKER_URL", "amqp://host", "expected a URL with the scheme 'redis' or 'rediss'"),
        (Database, "DATABASE_URL", "postgresql://host", "expected one host and a database name, as in postgresql://"),
    ],
)
def test_a_bad_secret_is_refused_without_its_value(
    monkeypatch: pytest.MonkeyPatch, section: type[Section], name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadEnvironment) as refused:
        read(section)
    assert f"{name}=(a secret, not shown): {expected}" in str(refused.value)


def test_a_refusal_never_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "too-short")
    monkeypatch.setenv("DATABASE_URL", "mysql://user:sesame@host/name")
    for section in (Deployment, Database):
        with pytest.raises(BadEnvironment) as refused:
            read(section)
        assert "too-short" not in str(refused.value)
        assert "sesame" not in str(refused.value)


def test_an_empty_value_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_MAX_CONNS", "")
    assert read(Database).db_max_conns == 20


def test_a_password_may_contain_what_a_url_reserves_but_nothing_that_ends_a_quoted_string(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "a/b@c#d")
    assert read(Queue).url.startswith("redis://:a%2Fb%40c%23d@127.0.0.1:")
    monkeypatch.setenv("REDIS_PASSWORD", 'a"b')
    with pytest.raises(
        BadEnvironment, match=r"REDIS_PASSWORD=\(a secret, not shown\): expected a password without quotes"
    ):
        read(Queue)


def test_the_url_of_pgbouncer_s_console_needs_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(Monitor).pgbouncer_url == ""
    for name, value in {"PGBOUNCER_HOST": "pooler", "PGBOUNCER_PORT": "6432", "DB_MONITOR_PASS": "a/b@c"}.items():
        monkeypatch.setenv(name, value)
    assert read(Monitor).pgbouncer_url == "postgresql://poolhouse_monitor:a%2Fb%40c@pooler:6432/pgbouncer"


def test_reports_must_outlive_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLHOUSE_PUBLISH_INTERVAL_S", "2")
    monkeypatch.setenv("POOLHOUSE_REPORT_TTL_S", "2")
    with pytest.raises(BadEnvironment, match=r"POOLHOUSE_REPORT_TTL_S=2: expected more than 2"):
        read(Deployment)


def test_settings_of_uploads_are_checked_against_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_THREADS", "4")
    assert read(Web).uploads_at_once == 2
    monkeypatch.setenv("WEB_THREADS", "1")
    assert read(Web).uploads_at_once == 1
    monkeypatch.setenv("WEB_UPLOAD_THREADS", "2")
    with pytest.raises(BadEnvironment, match=r"WEB_UPLOAD_THREADS=2: expected 1 or less, because WEB_THREADS=1"):
        read(Web)
    monkeypatch.setenv("WEB_THREADS", "2")
    with pytest.raises(BadEnvironment, match=r"WEB_UPLOAD_THREADS=2: expected 1 or less, because WEB_THREADS=2"):
        read(Web)
    monkeypatch.setenv("WEB_UPLOAD_THREADS", "1")
    assert read(Web).uploads_at_once == 1
    monkeypatch.setenv("INGEST_CLEAN_AGE_S", "14400")
    with pytest.raises(BadEnvironment, match=r"INGEST_CLEAN_AGE_S=14400: expected more than 14400"):
        read(Ingest)
