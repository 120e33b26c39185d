"""Masking passwords, and the values that database errors quote."""

import re
from collections.abc import Iterator

from django.db import Error

DRIVERS = ("psycopg", "psycopg2", "psycopg_pool")

# A password's name and its value: in settings, queries of URLs, dictionaries, JSON, tuples and SQL. A quoted value
# ends with a quote that is not doubled or escaped, or at the end of the line. The quotes may be escaped themselves, by
# a limited number of backslashes, so that time grows with the text and not with its square.
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
    """Mask passwords in URLs (scheme://user:password@host), settings (password=…), dictionaries and SQL."""
    if "://" in text:
        text = _WORD.sub(_without_url_password, text)
    return _PASSWORDS.sub(r"\g<key>***", text)


def _without_url_password(word: re.Match[str]) -> str:
    """Mask what is between a URL's user and the last @ of the word."""
    text = word[0]
    end = text.rfind("@")
    user = _USER.search(text, 0, max(end, 0))
    return f"{text[: user.end()]}***{text[end:]}" if user and user.end() < end else text


def masked_text(error: BaseException) -> str:
    """Return the text of a database error without the values that the server quotes.

    That is its first line: the lines after it quote the statement with its parameters, or the rejected row.
    """
    line = _NEAR.sub('"…"', str(error)).strip().partition("\n")[0]
    return without_passwords(_QUOTED.sub('"…"', line) if _is_of_data(error) else line)


def without_details(text: str, error: BaseException) -> str:
    """Remove from a text everything that a database error says besides `masked_text`, however it is indented there."""
    said, *details = str(error).strip().split("\n")
    if not said:
        return text
    text = text.replace(repr(error), f"{type(error).__name__}({masked_text(error)!r})")
    for form in (str(error), repr(str(error))[1:-1], said):
        text = text.replace(form, masked_text(error))
    for detail in filter(None, map(str.strip, details)):  # in an ExceptionGroup the lines begin with bars
        text = re.sub(rf"^([ \t|]*){re.escape(detail)}(?!\w)", r"\1…", text, flags=re.MULTILINE)
    return text


def database_errors(*errors: object) -> Iterator[BaseException]:
    """Yield the database errors, Django's and the driver's, among errors, their causes and their groups' members."""
    seen: list[object] = []
    left = [*errors]
    while left:
        error = left.pop()
        if not isinstance(error, BaseException) or any(error is one for one in seen):  # `raise x from x` makes a cycle
            continue
        seen.append(error)
        left += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
        if isinstance(error, Error) or type(error).__module__.partition(".")[0] in DRIVERS:
            yield error


def _is_of_data(error: BaseException) -> bool:
    """Return True if it is a DataError, Django's or the driver's."""
    return any(kind.__name__ == "DataError" for kind in type(error).__mro__)
