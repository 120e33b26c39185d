"""What is Django's way elsewhere, and not right under /api/."""

from collections.abc import Callable
from functools import cache
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from api.problems import CONTENT_TYPE, Problem
from api.views import api

Handler = Callable[[HttpRequest], HttpResponse]


def api_middleware(get_response: Handler) -> Handler:
    """Answer every error with a problem."""

    def respond(request: HttpRequest) -> HttpResponse:
        if not request.path.startswith(reverse("api:api-root")):
            return get_response(request)
        response = get_response(request)
        if response.status_code == HTTPStatus.MOVED_PERMANENTLY and request.method not in ("GET", "HEAD"):
            detail = f"{request.method} {request.path}: the address is {request.path}/, with a slash at its end"
            return Problem(HTTPStatus.NOT_FOUND, detail).response(request)
        is_error = response.status_code >= HTTPStatus.BAD_REQUEST
        return _problem(request, response) if is_error and response.get("Content-Type") != CONTENT_TYPE else response

    return respond


def _problem(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Make a problem of an answer that never came near the API, as to an address that there is not."""
    status = HTTPStatus(response.status_code)
    kept = {name: value for name, value in response.headers.items() if name == "Allow"}
    detail = f"{request.method} {request.path}: {status.description}"
    if kept:
        detail += f"; allowed: {kept['Allow']}"
    elif status == HTTPStatus.NOT_FOUND:
        detail += f"; addresses: {', '.join(_addresses())}"
    return Problem(status, detail, headers=kept).response(request)


@cache
def _addresses() -> list[str]:
    pages = [reverse(f"api:{name}") for name in ("openapi-view", "openapi-json")]
    return [*api.get_openapi_schema()["paths"], *pages]
