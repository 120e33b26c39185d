"""Run Python programs without the second that imports take: a process that has imported the libraries forks for each.

A program runs as in its own interpreter, except that libraries are already imported and that `ps` shows another command
line. Use this for programs that end by themselves and whose output is checked. Start the real command in tests about
imports, signals, a terminal, or a process that other processes observe.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config.env import CHECKOUT

# Only libraries, because the project reads the environment when imported, and none that selects the database driver.
PRELOADED = (
    "celery.app.amqp celery.app.task celery.result django.core.management django.core.serializers.json "
    "django.db.models django.http django.template.loader django.test.signals "
    "django.urls django.views.generic http.client numpy psycopg2.extras pyarrow.compute pyarrow.csv pyarrow.fs "
    "pyarrow.json pyarrow.parquet pydantic_settings redis rich.live rich.progress rich.table "
    "sqlalchemy.dialects.postgresql"
)

DEADLINE_S = 600  # long enough for a busy machine

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(PRELOADED.split())


def manage(*arguments: str, env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a management command and return the result of `run`."""
    return run([str(CHECKOUT / "backend/manage.py"), *arguments], env=env)


def run(
    arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a program as `python ARGUMENTS` does, and wait for its end; its stdin is empty.

    Args:
        arguments: a script, or -m and a module, or -c and code, and the arguments of the program.
        env: its whole environment.
        cwd: its working directory, if not the present one.

    Raises:
        subprocess.TimeoutExpired: it did not end within DEADLINE_S, and was killed.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        outputs = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (out, err)]
        program = _server.Process(target=_run, args=(list(arguments), dict(env), str(cwd or Path.cwd()), outputs))
        program.start()
        program.join(DEADLINE_S)
        if program.exitcode is None:
            program.kill()
            program.join()
            raise subprocess.TimeoutExpired(list(arguments), DEADLINE_S)
        return subprocess.CompletedProcess(list(arguments), program.exitcode, *map(_content, (out, err)))


def _content(file: Any) -> str:
    file.seek(0)
    return str(file.read())


def _run(arguments: list[str], env: dict[str, str], cwd: str, outputs: list[str]) -> None:
    """Replace the environment and run the program, in the forked process."""
    for descriptor, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY), descriptor)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    try:
        _start(arguments)
    finally:
        atexit._run_exitfuncs()  # multiprocessing does not call these handlers


def _start(arguments: list[str]) -> None:
    match arguments:
        case ["-m", module, *others]:
            sys.argv = [module, *others]
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *others]:
            sys.argv = ["-c", *others]
            sys.path.insert(0, "")
            exec(code, {"__name__": "__main__"})
        case [script, *others]:
            sys.argv = [script, *others]
            sys.path.insert(0, str(Path(script).parent))
            runpy.run_path(script, run_name="__main__")
