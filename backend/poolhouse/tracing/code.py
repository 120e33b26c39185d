"""Telling the project's own code from that of libraries."""

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
    """Return True if a file belongs to the project, not to Django, this app or another library."""
    return not path.startswith(("<", *LIBRARIES))
