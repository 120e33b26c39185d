"""What is Django's way elsewhere, and not right under /api/."""

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
    """Answer every error with a problem."""

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
    """Explain a redirect, which clients would follow with a GET and without the body."""
    if response["Location"].startswith("https:") and not request.is_secure():
        hint = "behind a proxy that ends TLS, SECURE_PROXY_SSL_HEADER names the header by which it says so"
        return HTTPStatus.FORBIDDEN, f"this server takes requests over https only; {hint}"
    return HTTPStatus.NOT_FOUND, f"the address is {request.path}/, with a slash at its end"


def _refused(request: HttpRequest, response: HttpResponse) -> tuple[HTTPStatus, str]:
    """Explain an answer that was made outside the API, as to an address that does not exist."""
    status = HTTPStatus(response.status_code)
    try:
        request.get_host()
    except DisallowedHost:
        return status, f"this server has no host name {request.headers.get('Host', '')!r}"
    if "Allow" in response.headers:
        return status, f"{status.description}; allowed: {response['Allow']}"
    if status == HTTPStatus.NOT_FOUND:
        return status, f"{status.description}; addresses: {', '.join(_addresses())}"
    return status, status.description


def _problem(request: HttpRequest, response: HttpResponse, status: HTTPStatus, detail: str) -> HttpResponse:
    """Make a problem of an answer, with the headers that other middlewares have given it."""
    problem = Problem(status, f"{request.method} {request.path}: {detail}").response(request)
    for name, value in response.headers.items():
        if name != "Location":
            problem.headers.setdefault(name, value)
    return problem


@cache
def _addresses() -> list[str]:
    pages = [reverse(f"api:{name}") for name in ("openapi-view", "openapi-json")]
    return [*api.get_openapi_schema()["paths"], *pages]
