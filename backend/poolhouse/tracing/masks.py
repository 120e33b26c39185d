"""What errors and log lines must not give away: passwords, and values that the server repeats."""

import re
from collections.abc import Iterator

from django.db import Error

DRIVERS = ("psycopg", "psycopg2", "psycopg_pool")

# What is called a password, and what follows: in settings, queries of URLs, dictionaries, JSON, tuples and SQL. A value
# in quotes ends with the quote that is not doubled or escaped, or with its line. The quotes may themselves be escaped,
# by so few backslashes that comparing them at each character is cheap: time grows with the text, not with its square.
_PASSWORDS = re.compile(
    r"""
      (?P<key> (?: passw(?:or)?d\d* | (?:\b|_)pass(?:phrase)? | (?:\b|_)pwd )
        (?: \\{0,15}["']? \s* [=:] \s*             # password=…, "password": …
          | \\{0,15}["']   \s* ,   \s* (?=\\{0,15}["'])   # ('password', '…')
          | \s+ (?=E?')                        # PASSWORD '…'
        ) )
      (?: E? (?P<quote> \\{0,15}["'] ) (?: \\. | \'\' | . )*? (?: (?P=quote) (?!') | $ )
        | [^\s,;&)]+ )
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_WORD = re.compile(r"\S+")
_USER = re.compile(r"\w://[^\s:/@]*:")
_NEAR = re.compile(r'(?<=at or near )".*"', re.DOTALL)
_QUOTED = re.compile(r'".*"')


def without_passwords(text: str) -> str:
    """Blot out passwords in URLs (scheme://user:password@host), settings (password=…), dictionaries and SQL."""
    if "://" in text:
        text = _WORD.sub(_without_url_password, text)
    return _PASSWORDS.sub(r"\g<key>***", text)


def _without_url_password(word: re.Match[str]) -> str:
    """Blot out what is between a URL's user and the last @ of its word."""
    text = word[0]
    end = text.rfind("@")
    user = _USER.search(text, 0, max(end, 0))
    return f"{text[: user.end()]}***{text[end:]}" if user and user.end() < end else text


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
