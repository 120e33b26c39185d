"""Which failures are logged, how often, and for which alias."""

import logging
from collections.abc import Callable

import psycopg2
import pytest
from django.core.handlers.base import BaseHandler
from django.db import OperationalError, connections
from django.utils.functional import SimpleLazyObject

from poolhouse.metrics.views import metrics
from poolhouse.tracing.log_lines import alias_of, log_database_error
from poolhouse.tracing.work import Work


def raised(fail: Callable[[], object]) -> BaseException:
    try:
        fail()
    except Exception as error:  # noqa: BLE001 - it is what is looked at
        return error
    raise AssertionError("it did not fail")


def test_finding_the_alias_evaluates_no_lazy_object() -> None:
    asked: list[int] = []

    def ask() -> None:
        asked.append(1)
        raise OperationalError("the server is away")

    user = SimpleLazyObject(ask)
    alias_of(raised(lambda: user.name))
    assert len(asked) == 1


@pytest.mark.parametrize("kind", [OperationalError, psycopg2.OperationalError])
def test_a_request_has_one_error_line_per_alias_including_driver_errors(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    def fail_on(wrapper: object) -> None:
        raise kind(f"away: {wrapper}")

    wrapper = connections.create_connection("default")
    other = connections.create_connection("default")
    other.alias = "archive"
    work = Work("request", "GET /")
    with caplog.at_level(logging.ERROR, "poolhouse.tracing.log_lines"):
        for one in (wrapper, wrapper, other, other):
            log_database_error(raised(lambda which=one: fail_on(which)), work)  # type: ignore[misc]
        log_database_error(raised(lambda: fail_on(wrapper)), Work("request", "GET /"))
    assert [vars(record)["alias"] for record in caplog.records] == ["default", "archive", "default"]


def test_no_setting_opens_a_transaction_for_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    database = {**connections.settings["default"], "ATOMIC_REQUESTS": True}
    monkeypatch.setattr(connections, "settings", {"default": database, "added_later": database})
    assert BaseHandler().make_view_atomic(metrics) is metrics
