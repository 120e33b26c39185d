"""Numbers with their units, and messages, written for people."""

from math import inf

NOT_GIVEN = "–"

# Up to here, in seconds, durations have this unit; slightly less, so that nothing is rounded up to 1000 ms.
_UNITS = (
    (0.9995e-3, 1e-6, "µs"),
    (0.9995, 1e-3, "ms"),
    (100, 1, "s"),
    (100 * 60, 60, "min"),
    (48 * 3600, 3600, "h"),
    (inf, 86400, "d"),
)


def duration(seconds: float | None) -> str:
    """Write a duration with two or three digits and its unit: 12 µs, 4.2 ms, 12.3 s; None is a dash."""
    if seconds is None:
        return NOT_GIVEN
    unit_s, unit = next((unit_s, unit) for end_s, unit_s, unit in _UNITS if seconds < end_s)
    value = seconds / unit_s
    return f"{value:.0f} {unit}" if unit_s < 1 and value >= 9.95 else f"{value:.1f} {unit}"


def percent(share: float | None) -> str:
    """Write a share in percent: 42.9 %."""
    return NOT_GIVEN if share is None else f"{share * 100:.1f} %"


def number(value: int | None) -> str:
    """Write a count with thousands separators; None is a dash."""
    return NOT_GIVEN if value is None else f"{value:,}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Write a count with its noun: 1 caller, 2 callers, 3 processes."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {plural or noun + 's'}"


def one_line(text: object) -> str:
    """Write a text, or an error's message, in one line."""
    return " ".join(str(text).split())
