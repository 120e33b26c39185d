"""The middleware: counts each request's database use, logs costly ones, and returns 503 after a pool timeout."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import quote

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.signals import got_request_exception
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from poolhouse.conf import options
from poolhouse.errors import PoolTimeoutError
from poolhouse.tracing.log_lines import log_cost, log_database_error, queries
from poolhouse.tracing.work import Work, current_work, doing

RETRY_AFTER_S = 5

# An attribute of a request, which outlives its work: `Work.failed_aliases`.
_FAILED_ALIASES = "_poolhouse_failed_aliases"

Handler = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


@dataclass(slots=True, kw_only=True)
class RequestWork(Work):
    """A request as the work of its thread."""

    request: HttpRequest = field(repr=False)  # its repr has the query string

    @property
    def view(self) -> str:
        """The name of the view, or its path if it has no name; empty before Django has resolved it."""
        match = self.request.resolver_match
        return match.view_name if match else ""


class DatabaseMiddleware:
    """Attributes statements and connections to requests, and returns 503 after a pool timeout.

    Put it first in MIDDLEWARE. Streaming a body counts as part of its request.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Handler) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        got_request_exception.connect(_note_error, dispatch_uid="poolhouse.note_error")

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Return the response, and count the request's database use."""
        if self._is_async:
            return self._answer(request)
        with doing(_work_of(request)) as work:
            response = cast(HttpResponseBase, self._get_response(request))
        return _conclude(work, request, response)

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        with doing(_work_of(request)) as work:
            response = await cast(Awaitable[HttpResponseBase], self._get_response(request))
        return _conclude(work, request, response)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Return 503 for a view's PoolTimeoutError, before Django reports it as an error."""
        if not isinstance(error, PoolTimeoutError):
            return None
        _log_failure(error, request)
        return _exhausted(request)


def _work_of(request: HttpRequest) -> Work:
    path = request.path if request.path.isprintable() else quote(request.path)  # a line break would forge a log line
    return RequestWork("request", f"{request.method} {path}", request=request)


def _note_error(*, request: HttpRequest | None = None, **_: Any) -> None:
    """Receive Django's `got_request_exception`: an unhandled error of a view or of another middleware."""
    error = sys.exception()
    _log_failure(error, request)
    if (work := current_work()) is not None:
        work.is_refused = isinstance(error, PoolTimeoutError)


def _log_failure(error: BaseException | None, request: HttpRequest | None) -> None:
    """Log an error once per request, although an outer middleware may meet it again."""
    work = current_work()
    if work is None and request is not None:
        work = _work_of(request)
        work.failed_aliases = vars(request).get(_FAILED_ALIASES, ())
    log_database_error(error, work)
    if work is not None and request is not None:
        vars(request)[_FAILED_ALIASES] = work.failed_aliases


def _conclude(work: Work, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if (
        work.is_refused and response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    ):  # an error that another middleware has met
        response = _exhausted(request)
    if options().SERVER_TIMING:
        _add_server_timing(work, response)
    if isinstance(response, StreamingHttpResponse) and not isinstance(
        response, FileResponse
    ):  # the web server sends files
        response.streaming_content = _stream(response.streaming_content, work)
    else:
        log_cost(work)
    return response


def _exhausted(request: HttpRequest) -> HttpResponse:
    return unavailable(request, "No database connection is available", RETRY_AFTER_S)


def unavailable(request: HttpRequest, reason: str, retry_after_s: int) -> HttpResponse:
    """Return a response with status 503, as JSON for clients that prefer it.

    Args:
        request: whose Accept header decides.
        reason: a sentence without its full stop.
        retry_after_s: the seconds until the client may try again.
    """
    text = f"{reason}. Try again in {retry_after_s} seconds."
    headers = {"Retry-After": str(retry_after_s)}
    if request.get_preferred_type(["text/plain", "application/json"]) == "application/json":
        return JsonResponse({"detail": text}, status=HTTPStatus.SERVICE_UNAVAILABLE, headers=headers)
    return HttpResponse(f"{text}\n", "text/plain; charset=utf-8", HTTPStatus.SERVICE_UNAVAILABLE, headers=headers)


def _add_server_timing(work: Work, response: HttpResponseBase) -> None:
    """Add the database times for the browser's developer tools. https://www.w3.org/TR/server-timing/."""
    metrics = [
        *filter(None, [response.headers.get("Server-Timing")]),
        f'db;dur={work.database_s * 1000:.1f};desc="{queries(work.statement_count)}"',
        *([f"pool-wait;dur={work.wait_s * 1000:.1f}"] if work.has_pool_times else []),
    ]
    response.headers["Server-Timing"] = ", ".join(metrics)


def _stream(content: Iterator[bytes] | AsyncIterator[bytes], work: Work) -> Iterator[bytes] | AsyncIterator[bytes]:
    """Return a body's pieces; between them the thread or event loop does not work for this request."""
    return _sync_stream(content, work) if isinstance(content, Iterator) else _async_stream(content, work)


def _sync_stream(pieces: Iterator[bytes], work: Work) -> Iterator[bytes]:
    try:
        while True:
            with doing(work):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece
    finally:
        log_cost(work)


async def _async_stream(pieces: AsyncIterator[bytes], work: Work) -> AsyncIterator[bytes]:
    try:
        while True:
            with doing(work):
                piece = await anext(pieces, None)
            if piece is None:
                return
            yield piece
    finally:
        log_cost(work)
