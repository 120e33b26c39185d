"""Log lines, plain or as JSON, that give no secret away."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from django.db import Error

from poolhouse.tracing.masks import without_passwords, words_of
from poolhouse.tracing.work import current_work

_OWN_FIELDS = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))


class PlainFormatter(logging.Formatter):
    """logging's own, but for passwords, and for the values that database errors quote."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line, with a traceback below it if there is one."""
        return _without_secrets(super().format(record), record)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, work if there is any, and the record's extra fields.

    Of these, text and numbers alone: what Django and Celery attach besides are requests, with their query strings, and
    the arguments of tasks.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Make the line."""
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
    for error in _chain(record.exc_info[1] if record.exc_info else None):
        if isinstance(error, Error) and str(error):  # its cause is the driver's error, which says the same
            text = text.replace(repr(error), f"{type(error).__name__}({words_of(error)!r})")
            text = text.replace(str(error), words_of(error))
    return without_passwords(text)


def _chain(error: BaseException | None) -> list[BaseException]:
    """Give an error and what led to it; `raise error from error` makes a ring."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _is_extra(name: str, value: object) -> bool:
    return name not in _OWN_FIELDS and isinstance(value, str | int | float | None)
