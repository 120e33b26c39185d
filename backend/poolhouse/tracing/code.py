"""Whose code it is: the project's own, or a library's that does something for it."""

import sysconfig
from pathlib import Path

import django

LIBRARIES = tuple(
    f"{folder}/"
    for folder in (
        Path(django.__file__).parent,
        Path(__file__).parent.parent,  # poolhouse
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")),
    )
)


def is_own_code(path: str) -> bool:
    """Say whether a file belongs to the project, and not to Django, to this app or to another library."""
    return not path.startswith(("<", *LIBRARIES))
