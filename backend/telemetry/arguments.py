"""Readers of command-line arguments, which say what is allowed when they refuse."""

from argparse import ArgumentTypeError
from collections.abc import Callable
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
            raise ArgumentTypeError(f"{text!r} is no whole number from {least:,} to {most:,}")
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
        raise ValueError(f"{text!r} is no time zone; allowed: a name such as Europe/Berlin or UTC") from None


def one_character(text: str) -> str:
    """Read what separates cells.

    Raises:
        ValueError: it is not one character of ASCII, or one that means something else.
    """
    character = "\t" if text == "\\t" else text
    if len(character) != 1 or not character.isascii() or character in '"\r\n\0':
        raise ValueError(f"{text!r} is no delimiter; allowed: one character, such as ; or \\t")
    return character


def ascii_encoding(text: str) -> str:
    """Read the name of an encoding in which the characters of ASCII are single bytes of the same number.

    Raises:
        ValueError: it is unknown, or another kind.
    """
    ascii_characters = bytes(range(128))
    try:
        if (
            ascii_characters.decode(text).encode(text)
            == ascii_characters
            == ascii_characters.decode(text).encode("ascii")
        ):
            return text
    except (LookupError, UnicodeError):
        pass
    raise ValueError(
        f"{text!r} is no encoding that can be read; allowed: one that extends ASCII, as utf-8, latin-1, cp1252"
    )
