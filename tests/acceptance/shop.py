"""A project of somebody else's that adds this app, one for each driver and engine: for `test_shop.py`."""

import io
import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery

given = json.loads(os.environ["SHOP"])
other = "psycopg" if given["driver"] == "psycopg2" else "psycopg2"
sys.modules[other] = None  # type: ignore[assignment]  # this project has one driver

import django  # noqa: E402
from django.conf import settings  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

os.environ["DJANGO_SETTINGS_MODULE"] = __name__  # Celery's fixup for Django asks for it; the settings are there already
settings.configure(
    SECRET_KEY="shop",
    ALLOWED_HOSTS=["*"],
    DATABASES=given["databases"],
    INSTALLED_APPS=["poolhouse", *(f"django.contrib.{name}" for name in ("contenttypes", "auth", "sessions"))],
    MIDDLEWARE=[
        f"{__name__}.Audit",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "poolhouse.middleware.DatabaseMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        f"{__name__}.Audit",
    ],
    ROOT_URLCONF=__name__,
    POOLHOUSE=given["poolhouse"],
)
django.setup()

from django.contrib.auth import login  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, connections  # noqa: E402

from poolhouse.metrics.views import metrics  # noqa: E402

END_OWN_SESSION = "SELECT pg_terminate_backend(pg_backend_pid())"
# In the midst of its rows.
COPY = (
    "COPY (SELECT CASE n WHEN 100000 THEN pg_terminate_backend(pg_backend_pid()) END"
    " FROM generate_series(1, 200000) AS n) TO STDOUT"
)


def index(request: HttpRequest) -> HttpResponse:
    """Use the session, the user and the database."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(f"{request.user}, one of {User.objects.count()}")


def sign_in(request: HttpRequest) -> HttpResponse:
    """Begin a session, so that `request.user` is somebody whom the database knows."""
    user, _ = User.objects.get_or_create(username="ada")
    login(request, user)
    return HttpResponse("welcome")


def leak(request: HttpRequest) -> HttpResponse:
    """Take a connection on a thread that never ends."""
    taken = threading.Event()

    def hold() -> None:
        connections["default"].ensure_connection()
        taken.set()
        threading.Event().wait()

    threading.Thread(target=hold, daemon=True).start()
    return HttpResponse("leaked" if taken.wait(10) else "no connection")


leak._non_atomic_requests = {"default", "archive"}  # type: ignore[attr-defined]  # as the decorator notes it


def fail(request: HttpRequest, how: str) -> HttpResponse:
    """Lose the connection in a statement, or in a COPY."""
    request.session["visits"] = 0
    _lose_connection(how)
    raise AssertionError("the connection outlived its session")


def _lose_connection(how: str) -> None:
    with connection.cursor() as cursor:
        if how == "statement":
            cursor.execute(END_OWN_SESSION)
        elif given["driver"] == "psycopg2":
            cursor.copy_expert(COPY, io.BytesIO())
        else:
            with cursor.copy(COPY) as copy:
                list(copy)


class Audit:
    """A middleware that needs the database after the view."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        if request.path == "/":
            User.objects.exists()
        return response


urlpatterns = [
    path("", index),
    path("quiet/", index),
    path("login/", sign_in),
    path("leak/", leak),
    path("fail/<how>/", fail),
    path("metrics", metrics),
]
application = get_wsgi_application()

app = Celery("shop", broker=given["broker_url"], backend=given["broker_url"])
app.conf.update(task_default_queue="shop", result_key_prefix="shop", broker_connection_retry_on_startup=True)


@app.task
def count() -> int:
    """Use the database."""
    return User.objects.count()


@app.task
def fail_in_task(how: str) -> None:
    """Lose the connection."""
    _lose_connection(how)


def manage(*arguments: Any) -> None:
    """Run a management command, as manage.py does."""
    from django.core.management import execute_from_command_line

    execute_from_command_line(["manage.py", *arguments])
