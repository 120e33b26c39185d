"""Log formatters, plain and JSON, that mask secrets."""

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from poolhouse.tracing.masks import database_errors, without_details, without_passwords
from poolhouse.tracing.work import current_work

_OWN_FIELDS = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))


# Control characters except tab and newline, and Unicode's line separators.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class PlainFormatter(logging.Formatter):
    """logging.Formatter with masked passwords, masked values in database errors, and without control characters.

    Only a record starts at the beginning of a line: its further lines, such as those of tracebacks, are indented. So
    text from a client, such as a file name, cannot look like a record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the traceback below it if there is one."""
        text = _without_secrets(super().format(record), record)
        return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text).replace("\n", "\n  ")


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, work if there is any, and the record's extra fields.

    Only extra fields that are text or numbers: Django and Celery also attach requests, with their query strings, and
    the arguments of tasks.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        work = current_work()
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
            **({"work": str(work)} if work else {}),
            **{name: value for name, value in vars(record).items() if _is_extra(name, value)},
            **({"exception": self.formatException(record.exc_info)} if record.exc_info else {}),
            **({"stack": record.stack_info} if record.stack_info else {}),
        }
        for name, value in fields.items():
            if isinstance(value, str):
                fields[name] = _without_secrets(value, record)
        return json.dumps(fields)


def _without_secrets(text: str, record: logging.LogRecord) -> str:
    """Mask passwords, and the values that the database quotes in the record's error and the error being handled."""
    arguments = record.args.values() if isinstance(record.args, Mapping) else record.args or ()
    raised = record.exc_info[1] if record.exc_info else None
    for error in database_errors(raised, sys.exception(), record.msg, *arguments):
        text = without_details(text, error)
    return without_passwords(text)


def _is_extra(name: str, value: object) -> bool:
    return name not in _OWN_FIELDS and isinstance(value, str | int | float | None)
