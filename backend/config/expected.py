"""What a variable may be, in words: for the message that refuses its value."""

from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails


def expected_value(field: FieldInfo, problem: ErrorDetails) -> str:
    """Return what is allowed; in the validator's own words where it has some."""
    context: dict[str, Any] = problem.get("ctx", {})
    match problem["type"].split("_"):
        case ["int" | "float" | "finite" | "greater" | "less", *_]:
            allowed = _number(field)
        case ["bool", *_]:
            allowed = "true or false"
        case ["literal", *_]:
            allowed = context["expected"]
        case ["string", "pattern", *_]:
            allowed = f"text that matches {context['pattern']}"
        case ["too", "short"]:
            allowed = f"at least {context['min_length']} characters"
        case ["url", "scheme"]:
            allowed = f"a URL with the scheme {context['expected_schemes']}"
        case ["url", "parsing"]:
            allowed = f"a URL ({context['error']})"
        case _:
            message = problem["msg"].removeprefix("Value error, ")
            return message[0].lower() + message[1:]
    return f"expected {allowed}"


def _number(field: FieldInfo) -> str:
    """Return the kind of number and its limits, as in "a whole number from 1 to 65535"."""
    kind, limits = _kind_and_limits(field)
    noun = "a whole number" if kind is int else "a number"
    least = [limit.ge for limit in limits if hasattr(limit, "ge")]
    above = [limit.gt for limit in limits if hasattr(limit, "gt")]
    most = [limit.le for limit in limits if hasattr(limit, "le")]
    lower = f" above {max(above)}" if above else f" from {max(least)}" if most else f" of at least {max(least)}"
    return f"{noun}{lower}{f' to {min(most)}' if most else ''}"


def _kind_and_limits(field: FieldInfo) -> tuple[Any, list[Any]]:
    """Return the type of a number and its limits; those of an optional one belong to the type inside."""
    if not (inside := get_args(field.annotation)):
        return field.annotation, field.metadata
    kind, info = get_args(inside[0])
    return kind, [*field.metadata, *info.metadata]
