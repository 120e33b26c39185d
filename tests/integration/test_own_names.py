"""A project's own application_name, after the name of the process that the status needs."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connections

from config.env import CHECKOUT
from poolhouse.identity import APPLICATION_NAME_MAX_BYTES, current, label_connections, process_of
from poolhouse.overview.status import Status
from poolhouse.reports.report import ProcessReport
from poolhouse.servers.server import client_connections, monitor_cursor
from tests import forked

pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture
def own() -> Iterator[dict[str, str]]:
    """Return the OPTIONS of an alias with a name of the project's own."""
    template = connections.settings["default"]
    chosen = {**template["OPTIONS"], "application_name": "orders api"}
    connections.settings["own"] = {**template, "OPTIONS": chosen}
    yield chosen
    del connections.settings["own"]


def test_the_server_shows_both_names_and_the_holder_is_found(own: dict[str, str]) -> None:
    for _ in range(2):
        label_connections()
    wrapper = connections.create_connection("own")
    wrapper.settings_dict = {**wrapper.settings_dict, "NAME": connections["default"].settings_dict["NAME"]}
    try:
        wrapper.connect()
        pid = wrapper.connection.info.backend_pid
        with monitor_cursor("default") as cursor:
            (mine,) = [one for one in client_connections(cursor) if one.pid == pid]
    finally:
        wrapper.close()
    me = current()
    assert mine.application == f"{me.name} orders api"
    report = ProcessReport(me.name, me.service, me.host, me.pid, time.time(), time.time(), ())
    assert Status(time.time(), [report], []).owner_of(mine) == me.name
    assert Status(time.time(), [], []).owner_of(mine) is None


def test_a_forked_child_has_its_own_name_before_the_project_s(own: dict[str, str], tmp_path: Path) -> None:
    label_connections()
    if (child := os.fork()) == 0:
        try:
            label_connections()
            (tmp_path / "name").write_text(own["application_name"])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    parent = current()
    expected = parent.name.removesuffix(str(parent.pid)) + f"{child} orders api"
    assert (tmp_path / "name").read_text() == expected


@pytest.mark.parametrize("name", ["x" * 200, "été", " "])
def test_the_process_name_is_never_shortened_by_the_project_s(own: dict[str, str], name: str) -> None:
    own["application_name"] = name
    label_connections()
    label = own["application_name"]
    assert process_of(label) == current().name
    assert len(label) <= APPLICATION_NAME_MAX_BYTES
    assert label.isascii()


@pytest.mark.parametrize(("command", "name"), [("beat", "beat"), ("worker", "worker")])
def test_a_process_of_celery_is_named_by_its_command(command: str, name: str) -> None:
    program = (
        f"import sys; sys.argv = ['celery', '-A', 'worker.app', '{command}']\n"
        "import worker.app, django; django.setup()\n"
        "from poolhouse.identity import current; print(current().service)"
    )
    environment = {**os.environ, "SERVICE_NAME": "", "CELERY_WORKER_RUNNING": "1"}
    answer = forked.run(["-c", program], env=environment, cwd=CHECKOUT)
    assert answer.stdout == f"{name}\n", answer.stderr
