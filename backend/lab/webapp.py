"""The smallest web that uses the database: one query a request, on the strategy that DB_STRATEGY names."""

import os
from typing import Any

from config.start import start

start("web")

from django.conf import settings  # noqa: E402 - it reads the environment
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

from config.env import Database, read  # noqa: E402


def one_query(request: HttpRequest) -> HttpResponse:
    """Ask the database the least that can be asked."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        body = f"{cursor.fetchone()[0]}\n"
    return HttpResponse(body, headers={"Content-Length": str(len(body)), "X-Process": str(os.getpid())})


urlpatterns = [path("", one_query)]

settings.ROOT_URLCONF = __name__
settings.MIDDLEWARE = []
# What poolhouse costs is counted against its own engine alone.
settings.INSTALLED_APPS = ["poolhouse"] if read(Database).db_strategy == "poolhouse" else []

application: Any = get_wsgi_application()
