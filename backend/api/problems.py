"""Errors as RFC 9457 problem documents, which say what happened, for people and for programs."""

import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, ValidationError

from poolhouse.tracing.log_lines import log_database_error
from poolhouse.tracing.work import current_work
from telemetry.formats import BadInput, StorageUnavailableError

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
DATABASE_RETRY_S = 5
STORAGE_RETRY_S = 30


class Problem(Exception):
    """An error to be answered with a problem document.

    Args:
        status: the HTTP status.
        detail: what happened, the value, what is allowed, and what to do.
        headers: additional headers of the answer.
        members: additional members of the document, for programs.
    """

    def __init__(
        self, status: HTTPStatus, detail: str, *, headers: dict[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.members = status, detail, headers or {}, members

    def response(self, request: HttpRequest) -> HttpResponse:
        """Return the answer. Its type is about:blank, because the status alone identifies the kind of problem."""
        document = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            "instance": request.get_full_path(),
            **self.members,
        }
        headers = {**self.headers}
        if request.method == "POST":  # otherwise the server would read the rest of a body that is not used
            headers["Connection"] = "close"
        body = json.dumps(document, indent=2, ensure_ascii=False).encode()
        headers["Content-Length"] = str(len(body))
        return HttpResponse(body, status=self.status, content_type=CONTENT_TYPE, headers=headers)


def answer_with_problems(api: NinjaAPI) -> None:
    """Register handlers that answer every error of an API with a problem document."""
    for kind, make in MAKERS.items():
        api.add_exception_handler(kind, partial(_answer, make))


def _answer(make: Callable[[Any], Problem], request: HttpRequest, error: Exception) -> HttpResponse:
    return make(error).response(request)


def _of_authentication(_: Exception) -> Problem:
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        "a valid token is required, as in Authorization: Bearer TOKEN; manage.py create_token NAME creates one",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _of_validation(error: ValidationError) -> Problem:
    faults = [
        {"parameter": _parameter(fault["loc"]), "problem": str(fault["msg"]).removeprefix("Value error, ")}
        for fault in error.errors
    ]
    detail = "; ".join(f"{fault['parameter']}: {fault['problem']}" for fault in faults)
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=faults)


def _parameter(place: Sequence[str | int]) -> str:
    """Return the name of the parameter at a location; that of an item in a list ends with its index."""
    return next((name for name in reversed(place) if isinstance(name, str)), "request")


def _of_database(error: Exception) -> Problem:
    log_database_error(error, current_work())
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"the database is not available ({type(error).__name__}); try again in {DATABASE_RETRY_S} s",
        headers={"Retry-After": str(DATABASE_RETRY_S)},
    )


def _of_storage(error: StorageUnavailableError) -> Problem:
    logger.warning("%s", error)
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"the server's file storage is not available; try again in {STORAGE_RETRY_S} s",
        headers={"Retry-After": str(STORAGE_RETRY_S)},
    )


def _of_anything(error: Exception) -> Problem:
    logger.error("unhandled exception while answering an API request", exc_info=error)
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; the server's log has the reason")


MAKERS: dict[type[Exception], Callable[[Any], Problem]] = {
    Problem: lambda problem: problem,
    AuthenticationError: _of_authentication,
    ValidationError: _of_validation,
    BadInput: lambda error: Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)),
    StorageUnavailableError: _of_storage,
    Http404: lambda error: Problem(HTTPStatus.NOT_FOUND, str(error)),
    OperationalError: _of_database,
    InterfaceError: _of_database,
    Exception: _of_anything,
}
