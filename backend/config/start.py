"""The first step of every entry point: name the service, and exit if the environment has invalid variables."""

import os
import sys
from collections.abc import Callable
from functools import partial

from config.database import get_database_settings, go_directly
from config.env import SECTIONS, BadEnvironment, Deployment, Servers, read


def start(service: str) -> None:
    """Prepare this process to load Django's settings.

    Args:
        service: the name of this process (web, manage, …), unless SERVICE_NAME is set.

    Exits with status 2 before anything is started, after one line for each invalid variable.

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
    """Return what is wrong with each section, or else with their combination; no application reads Servers."""
    sections = [partial(read, section) for section in SECTIONS if section is not Servers]
    by_itself = [problem for section in sections for problem in _problems_of(section)]
    return by_itself or _problems_of(get_database_settings)


def _problems_of(read_variables: Callable[[], object]) -> list[str]:
    try:
        read_variables()
    except BadEnvironment as error:
        return error.problems
    return []
