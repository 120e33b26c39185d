"""Types of command-line arguments, whose errors say what is expected."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from math import inf, nan


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return an argparse type of whole numbers from `least` to `most`, both included."""
    expected = f"from {least:,} to {most:,}" if most is not None else f"of at least {least:,}"

    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            raise ArgumentTypeError(f"expected a whole number {expected}, got {text!r}")
        return int(text)

    return convert


def number(least: float, most: float = inf, unit: str = "") -> Callable[[str], float]:
    """Return an argparse type of finite numbers from `least` to `most`, both included.

    Args:
        least: the least number that is allowed.
        most: the greatest one.
        unit: its name in errors, for example seconds.
    """
    of_unit = f" of {unit}" if unit else ""
    expected = f"{of_unit} from {least:,.10g} to {most:,.10g}" if most < inf else f"{of_unit}, {least:,.10g} or more"

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = nan
        if not least <= value <= most or value == inf:
            raise ArgumentTypeError(f"expected a number{expected}, got {text!r}")
        return value

    return convert
