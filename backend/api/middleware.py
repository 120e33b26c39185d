"""Problem documents for the errors under /api/ that Django answers itself, outside the API."""

from collections.abc import Callable
from functools import cache
from http import HTTPStatus

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from api.problems import CONTENT_TYPE, Problem
from api.views import api

Handler = Callable[[HttpRequest], HttpResponse]


def api_middleware(get_response: Handler) -> Handler:
    """Answer every error under /api/ with a problem document."""

    def respond(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if not request.path.startswith(reverse("api:api-root")):
            return response
        if response.status_code == HTTPStatus.MOVED_PERMANENTLY and request.method not in ("GET", "HEAD"):
            return _problem(request, response, *_moved(request, response))
        is_error = response.status_code >= HTTPStatus.BAD_REQUEST
        if is_error and response.get("Content-Type") != CONTENT_TYPE:
            return _problem(request, response, *_refused(request, response))
        return response

    return respond


def _moved(request: HttpRequest, response: HttpResponse) -> tuple[HTTPStatus, str]:
    """Return the status and detail to send in place of a redirect, which clients would follow without the body."""
    if response["Location"].startswith("https:") and not request.is_secure():
        hint = "behind a proxy that terminates TLS, set SECURE_PROXY_SSL_HEADER to the header in which it reports HTTPS"
        return HTTPStatus.FORBIDDEN, f"this server accepts requests over https only; {hint}"
    return HTTPStatus.NOT_FOUND, f"the address must end with a slash: {request.path}/"


def _refused(request: HttpRequest, response: HttpResponse) -> tuple[HTTPStatus, str]:
    """Return the status and detail of an error that was answered outside the API, such as an unknown address."""
    status = HTTPStatus(response.status_code)
    try:
        request.get_host()
    except DisallowedHost:
        return status, f"host {request.headers.get('Host', '')!r} is not in the server's setting ALLOWED_HOSTS"
    if "Allow" in response.headers:
        return status, f"{status.description}; allowed: {response['Allow']}"
    if status == HTTPStatus.NOT_FOUND:
        return status, f"{status.description}; existing addresses: {', '.join(_addresses())}"
    return status, status.description


def _problem(request: HttpRequest, response: HttpResponse, status: HTTPStatus, detail: str) -> HttpResponse:
    """Return a problem document with the headers that other middlewares set on the original answer."""
    problem = Problem(status, f"{request.method} {request.path}: {detail}").response(request)
    for name, value in response.headers.items():
        if name != "Location":
            problem.headers.setdefault(name, value)
    return problem


@cache
def _addresses() -> list[str]:
    pages = [reverse(f"api:{name}") for name in ("openapi-view", "openapi-json")]
    return [*api.get_openapi_schema()["paths"], *pages]
