"""What the web says of itself."""

import sys

import pytest
from django.db import connections
from django.test import Client, RequestFactory
from django.views.debug import technical_500_response
from pytest_django import DjangoAssertNumQueries, Settings

pytestmark = pytest.mark.django_db


def test_index_tells_service_version_and_connection(client: Client) -> None:
    document = client.get("/").json()
    assert document["service"] == "tests"
    assert document["connection"]["application_name"].startswith("tests@")
    assert document["connection"]["backend_pid"] > 0


def test_healthz_asks_nobody(client: Client, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(0):
        assert client.get("/healthz").json() == {"status": "ok"}


def test_readyz_is_ok_when_database_and_broker_answer(client: Client) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"database": "ok", "broker": "ok"})


def test_readyz_gives_the_reason_when_the_broker_is_away(client: Client, settings: Settings) -> None:
    settings.BROKER_URL = "redis://127.0.0.1:1/0"
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["database"] == "ok"
    assert "refused" in answer.json()["broker"]


def test_readyz_gives_the_reason_when_the_database_is_away(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"], "PORT", "1")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["broker"] == "ok"
    assert "refused" in answer.json()["database"]


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
        page = technical_500_response(RequestFactory().get("/"), *sys.exc_info())  # type: ignore[arg-type]
    assert "redis://:***@host:1/0" in page.content.decode()
    assert password not in page.content.decode()
