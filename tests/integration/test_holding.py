"""Holders of connections and hold times: over several aliases, and on threads that Django does not clean up."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.handlers.base import BaseHandler
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory
from django.urls import path
from pytest_django import Settings

from poolhouse.helpers import db_connection_monitor
from tests.conftest import DEADLINE_S, Stopwatch

ALIASES = ("left", "right")


@pytest.fixture
def _pools(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Two aliases of the test database, each with a pool of two connections."""
    from dj_db_conn_pool.core import pool_container

    template = connections["default"].settings_dict
    for alias in ALIASES:
        pool_options = {"POOL_SIZE": 2, "MAX_OVERFLOW": 0, "TIMEOUT": DEADLINE_S}
        ours = {"ENGINE": "poolhouse.engines.postgresql", "CONN_MAX_AGE": 0, "POOL_OPTIONS": pool_options}
        connections.settings[alias] = {**template, **ours}
    with django_db_blocker.unblock():
        yield
        for alias in ALIASES:
            connections[alias].close()
            if pool_container.has(alias):
                pool_container.get(alias).dispose()
                del pool_container[alias]
            del connections[alias]
            del connections.settings[alias]


pytestmark = pytest.mark.usefixtures("_pools")


def ask(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")


def test_a_hold_lasts_until_the_last_alias_is_checked_in() -> None:
    with db_connection_monitor("both") as usage:
        with Stopwatch() as held:
            for alias in ALIASES:
                connections[alias].ensure_connection()
            time.sleep(0.2)
            for alias in ALIASES:
                connections[alias].close()
        time.sleep(0.2)
    assert usage.hold_ms is not None
    assert 200 <= usage.hold_ms <= held.ms <= usage.elapsed_ms - 200


def test_a_connection_still_in_use_counts_after_another_was_checked_in() -> None:
    with db_connection_monitor("both") as usage:
        for alias in ALIASES:
            connections[alias].ensure_connection()
        connections["right"].close()
        time.sleep(0.2)
    assert usage.hold_ms is not None
    assert 200 <= usage.hold_ms <= usage.elapsed_ms


# Each request has a thread of its own: none comes so late that it is given one that another left, with its connection.
THREADS = 4
all_have_threads = threading.Barrier(THREADS, timeout=DEADLINE_S)


def _ask_beside_the_others() -> None:
    all_have_threads.wait()
    ask("left")


async def careless(request: HttpRequest) -> HttpResponse:
    await sync_to_async(_ask_beside_the_others, thread_sensitive=False)()
    return HttpResponse("asked")


def _ask_and_return() -> None:
    try:
        _ask_beside_the_others()
    finally:
        connections.close_all()


async def careful(request: HttpRequest) -> HttpResponse:
    await sync_to_async(_ask_and_return, thread_sensitive=False)()
    return HttpResponse("asked")


urlpatterns = [path("careless", careless), path("careful", careful)]


def ask_at_once(address: str) -> list[int]:
    """Handle requests as ASGI does, and return their statuses.

    Django's test client does not do here: it closes a response on any thread, and while several requests end at once,
    `close_old_connections` may run there and return the connection that a view has left behind.
    """
    handler = BaseHandler()
    handler.load_middleware(is_async=True)

    async def query_all() -> list[int]:
        requests = (AsyncRequestFactory().get(address) for _ in range(THREADS))
        answers: list[Any] = await asyncio.gather(*(handler.get_response_async(request) for request in requests))
        return [answer.status_code for answer in answers]

    return async_to_sync(query_all)()


def open_both(alias: str, timeout_s: float) -> None:
    """Open a pool's connections, so that its timeout then only covers waiting."""
    from dj_db_conn_pool.core import pool_container

    wrappers = [connections.create_connection(alias) for _ in range(2)]
    for wrapper in wrappers:
        wrapper.ensure_connection()
    for wrapper in wrappers:
        wrapper.close()
    pool_container.get(alias)._timeout = timeout_s


@pytest.mark.urls(__name__)
@pytest.mark.parametrize(
    ("address", "refused", "timeout_s"),
    [("/careless", 2, 0.5), ("/careful", 0, DEADLINE_S)],
    ids=["careless", "careful"],
)
def test_a_thread_without_a_request_keeps_its_connection_until_it_closes_it(
    settings: Settings, caplog: pytest.LogCaptureFixture, address: str, refused: int, timeout_s: float
) -> None:
    open_both("left", timeout_s)
    settings.MIDDLEWARE = ["poolhouse.middleware.DatabaseMiddleware"]
    assert sorted(ask_at_once(address)) == [200] * (THREADS - refused) + [503] * refused
    holder = "by request GET /careless in thread"
    assert sum(holder in record.getMessage() for record in caplog.records) == refused, "the error says who has them"
