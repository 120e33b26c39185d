"""The status pages, the admin and the debug page."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections
from django.test import Client, RequestFactory
from django.views.debug import technical_500_response
from pytest_django import DjangoAssertNumQueries, Settings

from config import views
from config.env import Monitor, read
from tests.conftest import DEADLINE_S, await_that

pytestmark = pytest.mark.django_db

TOKEN = {"Authorization": f"Bearer {read(Monitor).metrics_token.get_secret_value()}"}


@pytest.fixture(autouse=True)
def forget_probe() -> Iterator[None]:
    views.database_problem.forget()
    yield
    views.database_problem.forget()


def test_index_shows_service_version_and_connection(client: Client) -> None:
    document = client.get("/", headers=TOKEN).json()
    assert document["service"] == "tests"
    assert document["connection"]["application_name"].startswith("tests@")
    assert document["connection"]["backend_pid"] > 0


def test_healthz_queries_no_server(client: Client, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(0):
        assert client.get("/healthz").json() == {"status": "ok"}


def test_readyz_is_ok_when_the_database_answers_whatever_the_broker_does(client: Client, settings: Settings) -> None:
    settings.BROKER_URL = settings.CELERY_BROKER_URL = "redis://127.0.0.1:1/0"
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"database": "ok"})


def test_only_a_request_with_the_token_sees_why_the_database_is_unavailable(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "PORT", "1")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"database": "unavailable"})
    assert client.get("/readyz", headers={"Authorization": "Bearer no"}).json() == {"database": "unavailable"}
    assert "refused" in client.get("/readyz", headers=TOKEN).json()["database"]


def test_a_request_without_the_token_sees_no_version_host_or_role(client: Client) -> None:
    assert client.get("/").json() == {"service": "tests"}
    refused = client.get("/metrics")
    assert (refused.status_code, refused["WWW-Authenticate"]) == (401, "Bearer")
    assert b"poolhouse_" not in refused.content
    assert client.get("/metrics", headers=TOKEN).status_code == 200


def test_many_probes_at_once_open_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, goes_on = [], threading.Event()

    def look() -> str:
        looks.append(threading.get_ident())
        goes_on.wait(DEADLINE_S)
        return ""

    monkeypatch.setattr(views.database_problem, "_ask", look)
    with ThreadPoolExecutor(8) as probes:
        answers = [probes.submit(Client().get, "/readyz") for _ in range(8)]
        await_that(lambda: looks, "the first probe")
        goes_on.set()
        assert {answer.result().status_code for answer in answers} == {200}
    assert len(looks) == 1


@pytest.mark.parametrize("model", ["series", "ingestjob", "ingestbatch"])
def test_the_admin_shows_series_jobs_and_batches(admin_client: Client, model: str) -> None:
    assert admin_client.get(f"/admin/telemetry/{model}/").status_code == 200
    assert admin_client.get(f"/admin/telemetry/{model}/add/").status_code == 403, "the ledger is not edited by hand"


def test_a_debug_page_shows_no_password(settings: Settings) -> None:
    settings.DEBUG = True
    password = "".join(("ses", "ame"))  # the page shows the source, too
    settings.SOME_URL = f"redis://:{password}@host:1/0"
    settings.POOLHOUSE = {**settings.POOLHOUSE, "PGBOUNCER_URL": f"postgresql://me:{password}@host:1/db"}
    try:
        address = settings.SOME_URL
        raise ValueError(len(address))
    except ValueError:
        page = technical_500_response(RequestFactory().get("/"), *sys.exc_info())
    assert "redis://:***@host:1/0" in page.content.decode()
    assert password not in page.content.decode()


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics"])
def test_a_read_only_page_answers_405_to_other_methods(path: str) -> None:
    refused = Client(enforce_csrf_checks=True).post(path)
    assert (refused.status_code, refused["Allow"]) == (405, "GET, HEAD")


def test_the_admin_answers_503_without_the_database_and_logs_no_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(raise_request_exception=False)
    client.cookies["sessionid"] = "a" * 32
    connections.close_all()
    monkeypatch.setitem(connections.settings["default"], "PORT", "1")
    answer = client.get("/admin/")
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert [record.exc_info for record in caplog.records if record.exc_info] == []
    assert [record.name for record in caplog.records].count("poolhouse.tracing.log_lines") == 1
