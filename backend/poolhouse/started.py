"""How this process was started, from which its service is derived."""

import sys
from collections.abc import Sequence
from pathlib import PurePath

WEB_SERVERS = (
    "gunicorn",
    "uvicorn",
    "daphne",
    "hypercorn",
    "granian",
    "uwsgi",
    "mod_wsgi",
    "waitress-serve",
    "waitress",
)
TASK_RUNNERS = ("rq", "dramatiq", "huey_consumer", "arq", "procrastinate", "taskiq")
MANAGEMENT = ("manage", "django-admin", "django")
# Management commands that serve until they are stopped; all others do one job and end.
SERVING_COMMANDS = ("runserver", "runserver_plus", "testserver")
TASK_COMMANDS = (
    "qcluster",
    "run_huey",
    "rundramatiq",
    "process_tasks",
    "procrastinate",
)  # and those with "worker" in their names
# Celery's options before its subcommand that take a value.
CELERY_OPTIONS = ("-A", "--app", "-b", "--broker", "--result-backend", "--loader", "--config", "--workdir")

COMMAND, UNKNOWN = "manage", "django"


def service() -> str:
    """Return this process' service: web, worker, beat, …; manage for a management command, django if unknown."""
    return service_of(sys.argv)


def is_command() -> bool:
    """Return True in a management command: it serves no requests, and may hold a connection for as long as it runs."""
    return service() == COMMAND


def service_of(argv: Sequence[str]) -> str:
    """Return the service of a process with this command line, its program first."""
    program, arguments = _program(argv[0] if argv else ""), argv[1:]
    if program in WEB_SERVERS:
        return "web"
    if program in TASK_RUNNERS:
        return "worker"
    if program == "celery":
        found = _subcommand(arguments, CELERY_OPTIONS)
        return found if found in ("worker", "beat", "flower") else COMMAND
    return _service_of_command(_subcommand(arguments)) if program in MANAGEMENT else UNKNOWN


def _program(path: str) -> str:
    """Return the program's name, which `python -m` hides in the folder of `__main__.py`."""
    file = PurePath(path)
    return file.parent.name if file.name == "__main__.py" else file.name.removesuffix(".py")


def _subcommand(arguments: Sequence[str], with_value: Sequence[str] = ()) -> str:
    left = iter(arguments)
    for argument in left:
        if argument in with_value:
            next(left, None)
        elif not argument.startswith("-"):
            return argument
    return ""


def _service_of_command(command: str) -> str:
    if command in SERVING_COMMANDS:
        return "web"
    return "worker" if command in TASK_COMMANDS or "worker" in command else COMMAND
