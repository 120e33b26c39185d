"""Errors of commands: if a server, a file or a disk fails, one line and an exit status instead of a traceback."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import redis
from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError

from poolhouse.formatting import one_line

# An undefined table, column or schema, https://www.postgresql.org/docs/17/errcodes-appendix.html
NOT_MIGRATED_SQLSTATES = ("42P01", "42703", "3F000")


class ReasonCommand(BaseCommand):
    """A command that reports an external failure in one line, with exit status 1; --traceback shows the traceback."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command.

        Raises:
            CommandError: an argument is not UTF-8; a server, a file or a disk failed it.
        """
        _require_utf8(options)
        try:
            return super().execute(*args, **options)
        except Exception as error:
            if (reason := reason_of(error)) is None:
                raise
            raise CommandError(reason, returncode=1) from error


def _require_utf8(options: Mapping[str, Any]) -> None:
    """Reject arguments that are not UTF-8: Python keeps them as lone surrogates, which no database accepts."""
    for name, value in options.items():
        for text in value if isinstance(value, list | tuple) else [value]:
            try:
                str(text).encode()
            except UnicodeEncodeError:
                raise CommandError(f"{name}: expected UTF-8 text, got {text!a}", returncode=2) from None


@contextmanager
def exiting_with_reason() -> Iterator[None]:
    """Do the same in a block, for commands such as Django's: print the reason and end the process.

    Raises:
        SystemExit: a server, a file or a disk failed the block.
    """
    try:
        yield
    except Exception as error:
        reason = reason_of(error)
        if reason is None or "--traceback" in sys.argv:
            raise
        sys.stderr.write(f"CommandError: {reason}\n")
        raise SystemExit(1) from None


def reason_of(error: Exception) -> str | None:
    """Return in one line what failed outside of this program, or None for any other error."""
    match error:
        case OperationalError() | InterfaceError():
            return f"cannot use the database: {message_of(error)}"
        case DatabaseError() if _sqlstate(error) in NOT_MIGRATED_SQLSTATES:
            return f"migrations are missing in the database: {message_of(error)}; run manage.py migrate"
        case DatabaseError():
            return f"database error: {message_of(error)}"
        case redis.RedisError():
            return f"cannot use Redis: {message_of(error)}"
        case OSError():
            return _of_file(error)
    return f"cannot reach the broker: {message_of(error)}" if _is_of_broker(error) else None


def message_of(error: Exception) -> str:
    """Return the text of an error in one line, with the server's hint and without its context."""
    diagnosis = getattr(error.__cause__, "diag", None)
    primary, hint = getattr(diagnosis, "message_primary", None), getattr(diagnosis, "message_hint", None)
    text = f"{primary} ({hint})" if primary and hint else primary or str(error) or type(error).__name__
    return one_line(text)


def _sqlstate(error: DatabaseError) -> str | None:
    cause = error.__cause__
    state: str | None = getattr(cause, "pgcode", None) or getattr(cause, "sqlstate", None)  # psycopg2; psycopg
    return state


def _of_file(error: OSError) -> str:
    if error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return message_of(error)


def _is_of_broker(error: Exception) -> bool:
    """Return True for a connection error of kombu, without importing kombu."""
    kombu = sys.modules.get("kombu.exceptions")
    return kombu is not None and isinstance(error, kombu.OperationalError)
