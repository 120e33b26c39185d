"""Readers of command-line arguments, which say what is allowed when they refuse."""

import codecs
from argparse import ArgumentTypeError
from collections.abc import Callable
from string import punctuation
from typing import TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

T = TypeVar("T")


def argument(read: Callable[[str], T]) -> Callable[[str], T]:
    """Make a reader of one that raises ValueError with a text for people."""

    def convert(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from None

    return convert


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Make a reader of whole numbers within bounds, both included."""

    def convert(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise ArgumentTypeError(f"expected a whole number from {least:,} to {most:,}, got {text!r}")
        return int(text)

    return convert


def timezone(text: str) -> str:
    """Read the name of a time zone.

    Raises:
        ValueError: this system knows none of that name.
    """
    try:
        return ZoneInfo(text).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"expected a time zone such as Europe/Berlin or UTC, got {text!r}") from None


def one_character(text: str) -> str:
    """Read what separates cells.

    Raises:
        ValueError: it is not one character of ASCII, or one that means something else.
    """
    character = "\t" if text == "\\t" else text
    if len(character) != 1 or not character.isascii() or character in '"\r\n\0':
        raise ValueError(f"expected one character as the delimiter, such as ; or \\t, got {text!r}")
    return character


def escape_character(text: str) -> str:
    """Read the character that makes the next one stand for itself.

    Raises:
        ValueError: it is not a single punctuation mark, or it is the quote, which is doubled instead.
    """
    if len(text) != 1 or text not in punctuation or text == '"':
        raise ValueError(f"expected one punctuation mark other than a quote, such as \\, got {text!r}")
    return text


def ascii_encoding(text: str) -> str:
    """Read the name of an encoding in which lines and cells can be found before they are decoded.

    It is UTF-8, or has a byte for each character, of which the first 128 are those of ASCII.

    Raises:
        ValueError: it is unknown, or another kind.
    """
    each_byte = bytes(range(256))
    try:
        is_ascii = all(bytes([code]).decode(text) == chr(code) for code in range(128))
        # An escape is no single character in encodings that know such.
        is_single = len(each_byte.decode(text, "replace")) == 256 and len(rb"\u000a".decode(text)) == 6
        if is_ascii and (is_single or codecs.lookup(text).name == "utf-8"):
            return text
    except (LookupError, ValueError):  # unknown, not of text, as rot13, or without the means to replace, as idna
        pass
    raise ValueError(
        f"expected utf-8, or an encoding that extends ASCII by single bytes, such as latin-1 or cp1252; got {text!r}"
    )
