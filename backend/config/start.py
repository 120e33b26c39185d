"""The first thing every entry point does: name the service, then refuse an environment that cannot be used."""

import os
import sys
from collections.abc import Callable
from functools import partial

from config.database import get_database_settings, go_directly
from config.env import SECTIONS, BadEnvironment, Deployment, Servers, read


def start(service: str) -> None:
    """Prepare this process to load Django's settings.

    Args:
        service: what this process is (web, manage, …) unless SERVICE_NAME says otherwise.

    Exits with status 2, after one line for each bad variable, before anything is started.

    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    if service == "manage":
        go_directly()
    if problems := _problems():
        sys.stderr.write(f"{BadEnvironment(problems)}\n")
        raise SystemExit(2)
    if not read(Deployment).service_name:
        os.environ["SERVICE_NAME"] = service


def _problems() -> list[str]:
    """Read every section but Servers, which is no business of an application, then look whether they go together."""
    sections = [partial(read, section) for section in SECTIONS if section is not Servers]
    by_itself = [problem for section in sections for problem in _problems_of(section)]
    return by_itself or _problems_of(get_database_settings)


def _problems_of(look: Callable[[], object]) -> list[str]:
    try:
        look()
    except BadEnvironment as error:
        return error.problems
    return []
