"""The first thing every entry point does: name the service, then refuse an environment that cannot be used."""

import os
import sys

from config.env import SECTIONS, BadEnvironment, Deployment, Servers, read


def start(service: str) -> None:
    """Prepare this process to load Django's settings.

    Args:
        service: what this process is (web, manage, …) unless SERVICE_NAME says otherwise.

    Exits with status 2, after one line for each bad variable, before anything is started.

    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    problems: list[str] = []
    for section in SECTIONS:
        if section is Servers:  # it is no business of an application
            continue
        try:
            read(section)
        except BadEnvironment as problem:
            problems += problem.problems
    if not problems and not read(Deployment).service_name:
        os.environ["SERVICE_NAME"] = service
    if problems:
        sys.stderr.write(f"{BadEnvironment(problems)}\n")
        raise SystemExit(2)
