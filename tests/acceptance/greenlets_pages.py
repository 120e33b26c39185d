"""The pages of the project in greenlets.py."""

import threading
import time

import gevent.monkey
from django.db import OperationalError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from tests.acceptance.greenlets_interrupts import interrupt


def alive(request: HttpRequest) -> HttpResponse:
    """Answer without the database."""
    return JsonResponse({"patched": gevent.monkey.is_module_patched("threading"), "threads": threading.active_count()})


def sleep(request: HttpRequest, milliseconds: int) -> HttpResponse:
    """Wait in the database; tell who has served, from when to when."""
    try:
        with connection.cursor() as cursor:
            begun_at = time.monotonic()
            cursor.execute("SELECT pg_backend_pid(), pg_sleep(%s)", [milliseconds / 1000])
            return JsonResponse({"pid": cursor.fetchone()[0], "from": begun_at, "to": time.monotonic()})
    except OperationalError as error:
        return HttpResponse(str(error), status=503)


urlpatterns = [
    path("alive", alive),
    path("sleep/<int:milliseconds>", sleep),
    path("interrupt/<int:times>", interrupt),
]
