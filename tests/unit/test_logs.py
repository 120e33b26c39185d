"""Log lines, plain and JSON: what they contain, and what they must not contain."""

import json
import logging
import sys
from typing import Any

import psycopg2
import pytest
from django.db import DataError, IntegrityError, OperationalError
from django.test import RequestFactory

from poolhouse.logs import JsonFormatter, PlainFormatter
from poolhouse.tracing.masks import masked_text, without_passwords
from poolhouse.tracing.work import Work, doing

FORMATTERS = [PlainFormatter("{levelname} {name}: {message}", style="{"), JsonFormatter()]


def record(message: str, *arguments: Any, error: BaseException | None = None, **extra: Any) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    return logging.getLogger("a.b").makeRecord(
        "a.b", logging.WARNING, __file__, 1, message, arguments, exc_info, extra=extra
    )


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception:  # noqa: BLE001 - it is the one above
        caught = sys.exception()
    assert isinstance(caught, Exception)
    return caught


def test_json_is_one_object_a_line_with_the_extra_fields() -> None:
    line = JsonFormatter().format(record("x is %d\nand more", 1, alias="default", duration_ms=1.5, view=None))
    assert "\n" not in line
    document = json.loads(line)
    assert {"level": "WARNING", "logger": "a.b", "message": "x is 1\nand more"}.items() <= document.items()
    assert {"alias": "default", "duration_ms": 1.5, "view": None}.items() <= document.items()
    assert document["time"].endswith("+00:00")


def test_json_lines_name_their_request_or_task() -> None:
    assert "work" not in json.loads(JsonFormatter().format(record("x")))
    with doing(Work("task", "a[1]")):
        assert json.loads(JsonFormatter().format(record("x")))["work"] == "task a[1]"


def test_json_leaves_requests_and_the_arguments_of_tasks_out() -> None:
    request = RequestFactory().get("/x?token=sesame")
    line = JsonFormatter().format(record("x", request=request, data={"args": "('sesame',)"}, status_code=500))
    assert "sesame" not in line
    assert json.loads(line)["status_code"] == 500


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_a_traceback_is_kept(formatter: logging.Formatter) -> None:
    line = formatter.format(record("x", error=raised(ValueError("no such thing"))))
    assert "Traceback (most recent call last)" in line
    assert "ValueError: no such thing" in line


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_values_in_database_errors_are_masked_in_message_and_traceback(formatter: logging.Formatter) -> None:
    text = "invalid input syntax for type integer: \"sesame\"\nLINE 1: SELECT 'sesame'::int\n"
    error = raised(DataError(text), psycopg2.DataError(text))
    shown = record("failed: %s, %r", error, error, error=error)
    logging.Formatter().format(shown)  # another handler's, which leaves the traceback's text in the record
    line = formatter.format(shown)
    assert "sesame" not in line
    assert "invalid input syntax for type integer" in line


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_an_error_that_is_its_own_cause_is_shown_too(formatter: logging.Formatter) -> None:
    error = raised(OperationalError("away"))
    error.__cause__ = error
    assert "OperationalError: away" in formatter.format(record("x", error=error))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (IntegrityError('duplicate key value violates "x_key"\nDETAIL:  Key (a)=(sesame).'), 'violates "x_key"'),
        (OperationalError('server at "127.0.0.1", port 1 failed: refused\n\tIs it running?'), "port 1 failed: refused"),
        (OperationalError('invalid dsn: "postgresql://me:ses@ame@host/db x"'), "postgresql://me:***@host/db"),
        (OperationalError("bad: host=h password='ses ame' user=me"), "host=h password=*** user=me"),
        (OperationalError('unterminated quoted string at or near "\'sesame"\nLINE 1'), 'at or near "…"'),
    ],
)
def test_the_masked_text_of_a_database_error_has_no_values(error: Exception, words: str) -> None:
    assert masked_text(error).endswith(words) or words in masked_text(error)
    assert "ame" not in masked_text(error)
    assert "\n" not in masked_text(error)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:sesame@h:1/0 and http://h:80/", "redis://:***@h:1/0 and http://h:80/"),
        ("{'PASSWORD': 'ses ame', 'HOST': 'h'}", "{'PASSWORD': ***, 'HOST': 'h'}"),
        ("PGPASSWORD=sesame psql", "PGPASSWORD=*** psql"),
        ("CREATE ROLE x PASSWORD 'hunter''2 x' LOGIN", "CREATE ROLE x PASSWORD *** LOGIN"),
        (r"ALTER ROLE x PASSWORD E'hunter\'2'; SELECT 'y'", "ALTER ROLE x PASSWORD ***; SELECT 'y'"),
        ("DB_PASS=hunter2 HOST=h", "DB_PASS=*** HOST=h"),
        ("host=h pwd=hunter2;user=me", "host=h pwd=***;user=me"),
        ("[('password', 'hunter2 x'), ('host', 'h')]", "[('password', ***), ('host', 'h')]"),
        ("password='it''s hunter2', host='h'", "password=***, host='h'"),
        (r'{"passwd": "a\"hunter2", "host": "h"}', '{"passwd": ***, "host": "h"}'),
        (r'"{\"password\": \"hun ter2\", \"host\": \"h\"}"', r'"{\"password\": ***, \"host\": \"h\"}"'),
        ("{'password1': 'hunter2', 'name': 'n'}", "{'password1': ***, 'name': 'n'}"),
        ("password='', host='h'", "password=***, host='h'"),
        ("password='cut off\nTraceback", "password=***\nTraceback"),
        ("password authentication failed", "password authentication failed"),
        ("passfile=/etc/pgpass, bypass=1, it passed: 3", "passfile=/etc/pgpass, bypass=1, it passed: 3"),
    ],
)
def test_passwords_are_masked(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


def test_a_long_text_of_quotes_is_scanned_once() -> None:
    """With each quote tried as a beginning, it would take hours."""
    assert without_passwords(f"password='{chr(39) * 1_000_000}\\") == "password=***"


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("a://b:" * 200_000, "a://b:" * 200_000),
        ("a://b:" * 200_000 + "@", "a://b:***@"),
        ("password=" + "\\" * 500_000 + '"' + "\\" * 500_000, "password=***"),
        ("password" + " " * 1_000_000 + "x", "password" + " " * 1_000_000 + "x"),
        ("password" * 130_000, "password" * 130_000),
    ],
    ids=["URLs", "a URL", "backslashes", "spaces", "keys"],
)
def test_a_hostile_text_is_scanned_in_linear_time(hostile: str, shown: str) -> None:
    """In quadratic time, it would take hours."""
    assert without_passwords(hostile) == shown


FORGED = "x.csv\n2026-01-01 00:00:00,000 ERROR root: forged\r\x1b[2J\x85\u2028"


@pytest.mark.parametrize(
    "error", [ValueError(FORGED), OperationalError(FORGED), ExceptionGroup("both", [ValueError(FORGED)])]
)
def test_only_records_start_at_the_beginning_of_a_line(error: Exception) -> None:
    for shown in (
        record("%s is read", FORGED),
        record("failed: %s", error),
        record("failed", error=raised(error)),
        record(FORGED),
    ):
        first, *others = PlainFormatter("{levelname} {name}: {message}", style="{").format(shown).splitlines()
        assert first.startswith("WARNING a.b: ")
        assert all(line.startswith("  ") for line in others)
        assert "\x1b" not in "".join(others)


def test_json_is_one_line_whatever_its_text() -> None:
    assert len(JsonFormatter().format(record("%s is read", FORGED)).splitlines()) == 1


def test_the_line_breaks_of_a_message_are_kept() -> None:
    assert PlainFormatter().format(record("held by %s\n%s", "a", 1)) == "held by a\n  1"


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_driver_errors_that_django_has_not_wrapped_are_masked(formatter: logging.Formatter) -> None:
    as_psycopg_3_has_it = type("UniqueViolation", (Exception,), {"__module__": "psycopg.errors"})
    for kind in (psycopg2.errors.UniqueViolation, as_psycopg_3_has_it):
        error = raised(kind("duplicate key\nDETAIL:  Key (a)=(sesame) exists.\nCONTEXT:  COPY t, line 1: sesame\n"))
        group = ExceptionGroup("both", [ValueError("else"), ExceptionGroup("inner", [error])])
        for line in (formatter.format(record("x", error=group)), formatter.format(record("%s", error))):
            assert "sesame" not in line
            assert "duplicate key" in line


def test_masking_a_short_error_line_leaves_other_text_alone() -> None:
    line = PlainFormatter().format(record("at a table: %s", raised(OperationalError("no\na\n"))))
    assert line == "at a table: no"
