"""The cost of the middleware for a request with one query, measured in this process."""

import time
from statistics import median

from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django.urls import path

from poolhouse.tracing.statements import time_statements

ROUNDS, REQUESTS = 300, 20


def one_query(request: HttpRequest) -> HttpResponse:
    """Run the smallest query."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return HttpResponse(f"{cursor.fetchone()[0]}\n")


urlpatterns = [path("", one_query)]


def cost_us() -> float:
    """Return the microseconds that the middleware and the timing of statements add: medians of rounds in turn."""
    connection.ensure_connection()
    without, with_it = _handler(), _handler("poolhouse.middleware.DatabaseMiddleware")
    spans_us: dict[WSGIHandler, list[float]] = {without: [], with_it: []}
    for _ in range(ROUNDS):
        for handler, measured in spans_us.items():
            connection.execute_wrappers.clear()
            if handler is with_it:
                time_statements(connection)
            measured.append(_request_us(handler))
    return median(spans_us[with_it]) - median(spans_us[without])


def _handler(*middleware: str) -> WSGIHandler:
    with override_settings(MIDDLEWARE=list(middleware)):
        return WSGIHandler()


def _request_us(handler: WSGIHandler) -> float:
    """Return the microseconds of a request, without Django's signals around it."""
    request = RequestFactory().get("/")
    request.urlconf = __name__
    began_at = time.perf_counter()
    for _ in range(REQUESTS):
        handler.get_response(request)
    return (time.perf_counter() - began_at) / REQUESTS * 1e6
