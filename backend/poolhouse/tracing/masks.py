"""What errors and log lines must not give away: passwords, and values that the server repeats."""

import re

from django.db import DataError

_PASSWORDS = re.compile(
    r"""(\w://[^\s:/@]*:)\S+(?=@)|(passw(?:or)?d["']?\s*[=:]\s*)("[^"]*"|'(?:[^'\\]|\\.)*'|[^\s,;&)]+)""", re.IGNORECASE
)
_NEAR = re.compile(r'(?<=at or near )".*"', re.DOTALL)
_QUOTED = re.compile(r'".*"')


def without_passwords(text: str) -> str:
    """Blot out passwords in URLs (scheme://user:password@host) and settings (password=…)."""
    return _PASSWORDS.sub(lambda found: f"{found[1] or found[2]}***", text)


def words_of(error: BaseException) -> str:
    """Give what a database error says, without the values that the server repeats.

    That is its first line: those after it quote the statement, parameters included, or the row that was refused.
    """
    line = _NEAR.sub('"…"', str(error)).strip().partition("\n")[0]
    return without_passwords(_QUOTED.sub('"…"', line) if isinstance(error, DataError) else line)
