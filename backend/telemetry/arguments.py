"""Readers of command-line arguments, which say what is allowed when they refuse."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import TypeVar

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
