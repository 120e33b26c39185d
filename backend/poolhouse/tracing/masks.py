"""What errors and log lines must not give away: passwords, and values that the server repeats."""

import re
from collections.abc import Iterator

from django.db import Error

DRIVERS = ("psycopg", "psycopg2", "psycopg_pool")

# What is called a password, and what follows: in settings, queries of URLs, dictionaries, JSON, tuples and SQL. A value
# in quotes ends with the quote that is not doubled or escaped, or with its line; the quotes may themselves be escaped.
_PASSWORDS = re.compile(
    r"""
      (?P<url> \w://[^\s:/@]*: ) \S+ (?=@)
    | (?P<key> (?: passw(?:or)?d\d* | (?:\b|_)pass(?:phrase)? | (?:\b|_)pwd )
        (?: \\*["']? \s* [=:] \s*             # password=…, "password": …
          | \\*["']   \s* ,   \s* (?=\\*["'])   # ('password', '…')
          | \s+ (?=E?')                        # PASSWORD '…'
        ) )
      (?: E? (?P<quote> \\*["'] ) (?: \\. | \'\' | . )*? (?: (?P=quote) (?!') | $ )
        | [^\s,;&)]+ )
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_NEAR = re.compile(r'(?<=at or near )".*"', re.DOTALL)
_QUOTED = re.compile(r'".*"')


def without_passwords(text: str) -> str:
    """Blot out passwords in URLs (scheme://user:password@host), settings (password=…), dictionaries and SQL."""
    return _PASSWORDS.sub(lambda found: f"{found['url'] or found['key']}***", text)


def words_of(error: BaseException) -> str:
    """Give what a database error says, without the values that the server repeats.

    That is its first line: those after it quote the statement, parameters included, or the row that was refused.
    """
    line = _NEAR.sub('"…"', str(error)).strip().partition("\n")[0]
    return without_passwords(_QUOTED.sub('"…"', line) if _is_of_data(error) else line)


def without_words(text: str, error: BaseException) -> str:
    """Take what a database error says besides `words_of` out of a text that has it, however it is indented there."""
    said, *details = str(error).strip().split("\n")
    if not said:
        return text
    text = text.replace(repr(error), f"{type(error).__name__}({words_of(error)!r})")
    for form in (str(error), repr(str(error))[1:-1], said):
        text = text.replace(form, words_of(error))
    for detail in filter(None, map(str.strip, details)):  # in an ExceptionGroup each has bars before it
        text = re.sub(rf"^([ \t|]*){re.escape(detail)}(?!\w)", r"\1…", text, flags=re.MULTILINE)
    return text


def database_errors(*errors: object) -> Iterator[BaseException]:
    """Give those of the database, Django's and the driver's, among errors, what led to them and their groups' parts."""
    seen: list[object] = []
    left = [*errors]
    while left:
        error = left.pop()
        if not isinstance(error, BaseException) or any(error is one for one in seen):  # `raise x from x` makes a ring
            continue
        seen.append(error)
        left += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
        if isinstance(error, Error) or type(error).__module__.partition(".")[0] in DRIVERS:
            yield error


def _is_of_data(error: BaseException) -> bool:
    """Say whether it is a DataError, Django's or the driver's."""
    return any(kind.__name__ == "DataError" for kind in type(error).__mro__)
