"""What a page answers while the database is away: 503 and when to come back, as the API does, and no alarm of code."""

from collections.abc import Callable

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse

from api.problems import DATABASE_RETRY_S
from poolhouse.errors import PoolTimeoutError
from poolhouse.middleware import unavailable
from poolhouse.tracing.troubles import log_database_error
from poolhouse.tracing.work import current_work


class UnavailableMiddleware:
    """Answers for views, the admin's above all, that the database fails. It belongs last in MIDDLEWARE."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Pass a request on."""
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer with 503, and log the failure without a traceback; an exhausted pool is DatabaseMiddleware's."""
        if not isinstance(error, OperationalError | InterfaceError) or isinstance(error, PoolTimeoutError):
            return None
        log_database_error(error, current_work())
        return unavailable(request, "The database cannot be used now", DATABASE_RETRY_S)
