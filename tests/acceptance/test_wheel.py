"""What goes home with a user: the wheel, in environments and projects that know nothing of the sandbox."""

import json
import os
import re
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from config.env import CHECKOUT, Database, Queue, read
from sandbox.servers import Place
from tests.conftest import DEADLINE_S, await_that

UV = CHECKOUT / ".venv/bin/uv"
OURS = "poolhouse.engines.postgresql"
STANDARD = "django.db.backends.postgresql"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([UV, "build", "--quiet", "--wheel", "--out-dir", folder, CHECKOUT], check=True)
    (built,) = folder.glob("*.whl")
    return built


@dataclass(frozen=True)
class Project:
    """A project as `startproject` makes it, and the interpreter that it runs on."""

    folder: Path
    python: Path

    def set(self, line: str) -> None:
        """Add a line to the settings."""
        with (self.folder / "shop/settings.py").open("a") as settings:
            settings.write(f"{line}\n")

    def use_database(self, engine: str) -> None:
        """Use the tests' server."""
        database = read(Database)
        self.set(f"DATABASES['default'] = {database_settings(database)} | {{'ENGINE': '{engine}'}}")

    def manage(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a management command."""
        return subprocess.run(self._command(*arguments), **self._way, capture_output=True, timeout=DEADLINE_S)

    def status(self) -> dict[str, Any]:
        """What `db_pool_status --json` says."""
        answer = self.manage("db_pool_status", "--json")
        assert answer.returncode == 0, answer.stderr
        document: dict[str, Any] = json.loads(answer.stdout)
        return document

    @contextmanager
    def using_the_database(self) -> Iterator[int]:
        """Run a process that holds a connection, for the length of a block; give its pid."""
        program = "from django.db import connection; connection.ensure_connection(); input()"
        command = self._command("shell", "-c", program)
        with subprocess.Popen(command, **self._way, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            yield process.pid
            _, errors = process.communicate("\n", timeout=DEADLINE_S)
        assert process.returncode == 0, errors

    def _command(self, *arguments: str) -> list[str]:
        return [str(self.python), "-W", "error", "manage.py", *arguments]

    @property
    def _way(self) -> dict[str, Any]:
        return {"cwd": self.folder, "env": {"PATH": os.environ["PATH"], "HOME": str(self.folder)}, "text": True}


def database_settings(database: Database) -> dict[str, Any]:
    return {
        "HOST": "127.0.0.1",
        "PORT": database.db_port,
        "NAME": database.db_name,
        "USER": database.db_user,
        "PASSWORD": database.db_pass.get_secret_value(),
    }


@pytest.fixture(scope="module")
def make_project(servers: Place, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Project]:
    """Install the wheel, with what is named beside it, into an empty environment, and start a project there."""

    def make(extras: str, *packages: str) -> Project:
        folder = tmp_path_factory.mktemp("project")
        python = folder / "venv/bin/python"
        uv(["venv", "--python", CHECKOUT / ".venv/bin/python", folder / "venv"])
        # The versions of the lock, so that a release of somebody else's does not change what is tested.
        pinned = ["--constraint", CHECKOUT / "requirements.txt"]
        uv(["pip", "install", "--python", python, *pinned, f"{wheel}{extras}", *packages])
        start = [str(python), "-m", "django", "startproject", "shop", str(folder)]
        subprocess.run(start, env={"PATH": os.environ["PATH"]}, check=True)
        project = Project(folder, python)
        project.set("INSTALLED_APPS = ['poolhouse', *INSTALLED_APPS]")
        return project

    return make


def uv(arguments: list[Any]) -> None:
    subprocess.run([str(UV), "--quiet", *map(str, arguments)], check=True)


def test_the_wheel_holds_the_app_poolhouse_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"poolhouse"}
    assert "poolhouse/management/commands/db_pool_status.py" in names
    assert "poolhouse/py.typed" in names


def metadata_of(wheel: Path) -> str:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return archive.read(metadata).decode()


def test_the_wheel_has_a_readme_of_its_own(wheel: Path) -> None:
    headers, _, description = metadata_of(wheel).partition("\n\n")
    assert "Description-Content-Type: text/markdown" in headers
    assert description.strip() == (CHECKOUT / "backend/poolhouse/README.md").read_text().strip()


def test_each_extra_brings_what_its_name_says(wheel: Path) -> None:
    required = [line for line in metadata_of(wheel).splitlines() if line.startswith("Requires-Dist: ")]
    drivers = sorted(re.findall(r"Requires-Dist: (psycopg\w*).*extra == '([\w-]+)'", "\n".join(required)))
    assert drivers == [("psycopg", "pool-psycopg"), ("psycopg2", "pool-psycopg2")]


def test_the_app_and_its_engine_are_a_line_each_in_a_project_of_one_s_own(make_project: Callable[..., Project]) -> None:
    project = make_project("[pool-psycopg2]")
    project.use_database(OURS)
    redis = {"REDIS_URL": read(Queue).url, "KEY_PREFIX": "shop", "PUBLISH_INTERVAL_S": 0.1}
    project.set(f"POOLHOUSE = {redis | {'SERVICE': 'shop', 'REPORT_TTL_S': 5}}")
    for check in (["check"], ["check", "--database", "default"]):
        answer = project.manage(*check, "--fail-level", "WARNING")
        assert answer.returncode == 0, answer.stderr
    with ExitStack() as stack:
        pids = {stack.enter_context(project.using_the_database()) for _ in range(2)}
        found: dict[str, Any] = {}

        def both_report() -> bool:
            found.update(project.status())
            in_use = {process["pid"]: process["pools"][0]["in_use"] for process in found["processes"]}
            return in_use == dict.fromkeys(pids, 1)

        await_that(both_report)
        printed = project.manage("db_pool_status", "--detailed")
    assert found["unreachable"] == []
    for process in found["processes"]:
        (pool,) = process["pools"]
        assert (process["service"], pool["engine"], pool["kind"]) == ("shop", OURS, "queuepool")
        assert (pool["size"], pool["idle"], pool["counts"]["lent"]) == (10, 0, 1)
        assert len(process["server_connections"]) == 1, "the server sees what the process reports"
        assert process["name"] in printed.stdout
    assert printed.returncode == 0, printed.stderr
    assert project.status()["processes"] == [], "who ends in good order takes the report away"


def test_without_redis_celery_and_the_engine_it_works_and_says_what_is_missing(
    make_project: Callable[..., Project],
) -> None:
    project = make_project("", "psycopg2-binary")
    project.use_database(STANDARD)
    for module in ("dj_db_conn_pool", "sqlalchemy", "celery", "prometheus_client"):
        missing = project.manage("shell", "-c", f"import {module}")
        assert f"No module named '{module}'" in missing.stderr, "the environment is as bare as it is meant to be"
    check = project.manage("check", "--database", "default", "--fail-level", "WARNING")
    assert check.returncode == 0, check.stderr
    call = "print(bool(check_connection_health()), get_connection_info(connect=True).is_open)"
    helpers = project.manage("shell", "-c", f"from poolhouse.helpers import *; {call}")
    assert helpers.stdout.split()[-2:] == ["True", "True"], helpers.stderr
    status = project.status()
    assert status["servers"][0]["max_connections"] == 40
    assert status["verdict"]["reasons"] == [
        "process reports are unreachable: POOLHOUSE['REDIS_URL'] is not set: processes do not report"
    ]
    project.set("POOLHOUSE = {'REDIS_URL': 'redis://127.0.0.1:1/0'}")
    assert project.manage("check").returncode == 0
    (reason,) = project.status()["verdict"]["reasons"]
    assert reason.startswith("process reports are unreachable: Redis: ")


def test_the_driver_is_the_project_s_choice(make_project: Callable[..., Project]) -> None:
    project = make_project("[pool]", "psycopg[binary]")
    project.use_database(OURS)
    with project.using_the_database():
        pass
    for module in ("psycopg2", "psycopg_pool"):
        missing = project.manage("shell", "-c", f"import {module}")
        assert f"No module named '{module}'" in missing.stderr, "nobody asked for it"


def test_an_engine_whose_packages_are_missing_names_them_and_the_status_answers(
    make_project: Callable[..., Project],
) -> None:
    project = make_project("", "psycopg2-binary")
    project.use_database(OURS)
    check = project.manage("check")
    assert check.returncode != 0
    assert check.stderr.splitlines()[-1].endswith(
        f"The engine {OURS} requires dj_db_conn_pool and sqlalchemy: pip install 'poolhouse[pool]'."
    )
    assert project.status()["servers"][0]["max_connections"] == 40
