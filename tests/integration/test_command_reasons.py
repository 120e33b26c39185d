"""Commands without their server, spool or file: one line, exit status 1, never a traceback."""

import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import find_commands, load_command_class
from django.db import connection
from rich.console import Console

from config.env import CHECKOUT
from lab.management.experiment import ExperimentCommand
from poolhouse.display.monitor_command import MonitorCommand
from poolhouse.display.reasons import ReasonCommand
from telemetry.formats import SPOOL_MARKER
from telemetry.models import IngestBatch
from telemetry.watch import watch_job
from tests import forked
from tests.plugin import superuser_sql
from worker.loader import load

# How each command is started so that it needs its database.
ARGUMENTS = {
    "bucket_means": ("load", "--by", "device"),
    "cancel_ingest": ("1",),
    "clean_spool": (),
    "create_token": ("somebody",),
    "db_pool_advise": ("--rate", "1", "--hold-ms", "1"),
    "enqueue_ingest": ("{csv}", "--time", "time", "--values", "load", "--wait"),
    "generate_readings": ("--from", "2024-01-01", "--to", "2024-01-02", "--enqueue"),
    "ingest_status": (),
    "retry_ingest": ("1",),
    "revoke_token": ("somebody",),
}
WITHOUT_DATABASE = {"prepare_spool"}
DJANGO = {
    "migrate": (),
    "showmigrations": (),
    "createsuperuser": ("--noinput", "--username", "a", "--email", "a@example.org"),
    "changepassword": ("a",),
}


def own_commands() -> dict[str, type]:
    """Return the classes of the commands of the apps that lie in the project."""
    found: dict[str, type] = {}
    for app in apps.get_app_configs():
        if Path(app.path).is_relative_to(CHECKOUT / "backend"):
            names = find_commands(f"{app.path}/management")
            found |= {name: type(load_command_class(app.name, name)) for name in names}
    return found


def test_every_command_reports_external_failures_in_one_line() -> None:
    commands = own_commands()
    for name, command in commands.items():
        assert issubclass(command, ReasonCommand | MonitorCommand | ExperimentCommand), (
            f"{name}: derive it from poolhouse.display.reasons.ReasonCommand"
        )
    asking = {name for name, command in commands.items() if issubclass(command, ReasonCommand)}
    assert asking == ARGUMENTS.keys() | WITHOUT_DATABASE, "add the new command to ARGUMENTS"


def manage(tmp_path: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "readings.csv").write_text("time,load\n2024-05-01T00:00Z,1\n")
    left = tmp_path / "spool/files/left.csv"  # something to look up
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    (tmp_path / "spool" / SPOOL_MARKER).touch()
    spool = {"INGEST_SPOOL": str(tmp_path / "spool"), "DJANGO_SUPERUSER_PASSWORD": "a"}
    arguments = [word.format(csv=tmp_path / "readings.csv") for word in words]
    return forked.manage(*arguments, env={**os.environ, **spool, **variables})


def assert_reason(answer: subprocess.CompletedProcess[str], reason: str) -> None:
    """Assert that the reason is the last line of stderr, and the only error."""
    assert answer.returncode == 1, answer.stderr
    assert "Traceback" not in answer.stderr
    errors = [line for line in answer.stderr.splitlines() if line.startswith("CommandError: ")]
    assert errors == answer.stderr.splitlines()[-1:]
    assert reason in errors[0]


@pytest.mark.parametrize("command", [*ARGUMENTS, *DJANGO])
def test_a_command_without_its_server_ends_with_one_line(tmp_path: Path, command: str) -> None:
    answer = manage(tmp_path, command, *{**ARGUMENTS, **DJANGO}[command], DB_PORT="1")
    assert_reason(
        answer,
        "cannot read max_connections from the server: " if command == "db_pool_advise" else "cannot use the database: ",
    )


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"DB_USER": "nobody"}, 'password authentication failed for user "nobody"'),
        ({"DB_NAME": "nowhere"}, 'database "nowhere" does not exist'),
        ({"DB_NAME": "template1"}, "run manage.py migrate"),
    ],
    ids=["wrong user or password", "no such database", "not migrated"],
)
@pytest.mark.parametrize("command", ["create_token", "ingest_status", "enqueue_ingest", "createsuperuser"])
def test_a_command_names_the_problem_with_its_database(
    tmp_path: Path, command: str, variables: dict[str, str], reason: str
) -> None:
    assert_reason(manage(tmp_path, command, *{**ARGUMENTS, **DJANGO}[command], **variables), reason)


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("command", ["clean_spool", "prepare_spool", "generate_readings"])
def test_a_command_without_its_spool_ends_with_one_line(tmp_path: Path, command: str) -> None:
    words = ARGUMENTS.get(command, ())
    assert_reason(manage(tmp_path, command, *words, INGEST_SPOOL="/proc/no/spool"), "the spool: ")


def test_a_command_that_cannot_write_its_file_ends_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "full.csv").symlink_to("/dev/full")
    words = ("--from", "2024-01-01", "--to", "2024-01-02", "--out", str(tmp_path / "full.csv"))
    assert_reason(manage(tmp_path, "generate_readings", *words), "No space left on device")


def test_advice_without_redis_ends_with_one_line(tmp_path: Path) -> None:
    away = {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}
    assert_reason(manage(tmp_path, "db_pool_advise", "--over", "0.1", **away), "cannot read the reports from Redis: ")


def test_a_traceback_is_shown_on_request(tmp_path: Path) -> None:
    for command in ("showmigrations", "ingest_status"):
        answer = manage(tmp_path, command, "--traceback", DB_PORT="1")
        assert answer.returncode == 1
        assert "Traceback" in answer.stderr


@pytest.mark.django_db(transaction=True)
def test_watching_continues_after_the_server_closes_the_session(batches_of: Callable[..., list[IngestBatch]]) -> None:
    (batch,) = batches_of("2024-05-01T00:00Z,a,1,2")
    load(batch.pk)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    superuser_sql(f"SELECT pg_terminate_backend({pid}, 10000)")
    out = io.StringIO()
    assert watch_job(batch.job_id, Console(file=out, width=200))
    assert out.getvalue().count("Cannot query the database: ") == 1
    assert f"job {batch.job_id} done" in out.getvalue()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("create_token", "\udcff"), "name"),
        (("revoke_token", "\udcff"), "name"),
        (("bucket_means", "load", "--by", "\udcff"), "by"),
        (("enqueue_ingest", "{csv}", "--time", "time", "--values", "load", "--empty", "\udcff"), "empty"),
        (("enqueue_ingest", "\udcff.csv", "--time", "time", "--values", "load"), "paths"),
    ],
)
def test_an_argument_that_is_not_utf8_is_rejected(tmp_path: Path, words: tuple[str, ...], name: str) -> None:
    answer = manage(tmp_path, *words)
    assert answer.returncode == 2
    assert answer.stderr.splitlines()[-1].startswith(f"CommandError: {name}: expected UTF-8 text, got '\\udcff")
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("name", ["", " ", "a\nb"])
def test_a_token_has_a_name_that_can_be_printed(tmp_path: Path, name: str) -> None:
    answer = manage(tmp_path, "create_token", name)
    assert answer.returncode == 2
    assert answer.stderr == f"CommandError: expected a name of printable characters, got {name!r}\n"
