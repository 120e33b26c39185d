"""Types of command-line arguments and API parameters, whose errors say what is expected."""

import codecs
from argparse import ArgumentTypeError
from collections.abc import Callable
from string import punctuation
from typing import TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

T = TypeVar("T")


def argument(read: Callable[[str], T]) -> Callable[[str], T]:
    """Return an argparse type from a function whose ValueError has a message for users."""

    def convert(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from None

    return convert


def timezone(text: str) -> str:
    """Return the name of a time zone.

    Raises:
        ValueError: this system has no time zone of that name.
    """
    try:
        return ZoneInfo(text).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"expected a time zone such as Europe/Berlin or UTC, got {text!r}") from None


def one_character(text: str) -> str:
    r"""Return the delimiter of a CSV; \t is a tab.

    Raises:
        ValueError: it is not a single ASCII character, or one with another meaning in a CSV.
    """
    character = "\t" if text == "\\t" else text
    if len(character) != 1 or not character.isascii() or character in '"\r\n\0':
        raise ValueError(f"expected one character as the delimiter, such as ; or \\t, got {text!r}")
    return character


def escape_character(text: str) -> str:
    """Return the escape character of a CSV.

    Raises:
        ValueError: it is not a single punctuation mark, or it is the double quote.
    """
    if len(text) != 1 or text not in punctuation or text == '"':
        raise ValueError(f"expected one punctuation mark other than a double quote, such as \\, got {text!r}")
    return text


def ascii_encoding(text: str) -> str:
    """Return the name of an encoding in which lines and cells can be found before they are decoded.

    It is UTF-8, or a single-byte encoding whose first 128 characters are those of ASCII.

    Raises:
        ValueError: it is unknown, or an encoding of another kind.
    """
    each_byte = bytes(range(256))
    try:
        is_ascii = all(bytes([code]).decode(text) == chr(code) for code in range(128))
        # Encodings with escape sequences decode this to fewer characters.
        is_single = len(each_byte.decode(text, "replace")) == 256 and len(rb"\u000a".decode(text)) == 6
        if is_ascii and (is_single or codecs.lookup(text).name == "utf-8"):
            return text
    except (LookupError, ValueError):  # unknown, not a text encoding (rot13), or without error handlers (idna)
        pass
    raise ValueError(
        f"expected utf-8 or a single-byte encoding that extends ASCII, such as latin-1 or cp1252, got {text!r}"
    )
