"""The response of a page while the database is unavailable: 503 with Retry-After, as the API answers."""

from collections.abc import Callable

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse

from api.problems import DATABASE_RETRY_S
from poolhouse.errors import PoolTimeoutError
from poolhouse.middleware import unavailable
from poolhouse.tracing.log_lines import log_database_error
from poolhouse.tracing.work import current_work


class UnavailableMiddleware:
    """Answers with 503 for views that fail because of the database, such as the admin's. Put it last in MIDDLEWARE."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Return the response of the view."""
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Return 503 and log the error without a traceback; DatabaseMiddleware handles an exhausted pool."""
        if not isinstance(error, OperationalError | InterfaceError) or isinstance(error, PoolTimeoutError):
            return None
        log_database_error(error, current_work())
        return unavailable(request, "The database is unavailable", DATABASE_RETRY_S)
