"""Refusals, as RFC 9457 has them: a document that says what happened, for people and for programs."""

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

from poolhouse.tracing.troubles import log_database_error
from poolhouse.tracing.work import current_work
from telemetry.formats import BadInput, StorageUnavailableError

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
DATABASE_RETRY_S = 5
STORAGE_RETRY_S = 30


class Problem(Exception):
    """A request that is refused.

    Args:
        status: of the answer.
        detail: what happened, the value, what is allowed, and what to do.
        headers: of the answer, beside its own.
        members: more of the document, for programs.
    """

    def __init__(
        self, status: HTTPStatus, detail: str, *, headers: dict[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.members = status, detail, headers or {}, members

    def response(self, request: HttpRequest) -> HttpResponse:
        """Make the answer; the kind of problem is told by the status, so its type is about:blank."""
        document = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            "instance": request.get_full_path(),
            **self.members,
        }
        headers = {**self.headers}
        if request.method == "POST":  # else the server would read the rest of a body that nobody wants
            headers["Connection"] = "close"
        body = json.dumps(document, indent=2, ensure_ascii=False).encode()
        headers["Content-Length"] = str(len(body))
        return HttpResponse(body, status=self.status, content_type=CONTENT_TYPE, headers=headers)


def answer_with_problems(api: NinjaAPI) -> None:
    """Have every error of an API answered with a problem."""
    for kind, make in MAKERS.items():
        api.add_exception_handler(kind, partial(_answer, make))


def _answer(make: Callable[[Any], Problem], request: HttpRequest, error: Exception) -> HttpResponse:
    return make(error).response(request)


def _of_authentication(_: Exception) -> Problem:
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        "a valid token is needed: Authorization: Bearer …; manage.py create_token NAME makes one",
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
    """Return the name of a parameter; of a list's item, the place ends in its index."""
    return next((name for name in reversed(place) if isinstance(name, str)), "request")


def _of_database(error: Exception) -> Problem:
    log_database_error(error, current_work())
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"the database cannot be used now ({type(error).__name__}); try again",
        headers={"Retry-After": str(DATABASE_RETRY_S)},
    )


def _of_storage(error: StorageUnavailableError) -> Problem:
    logger.warning("%s", error)
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the server cannot read or write its files now; try again",
        headers={"Retry-After": str(STORAGE_RETRY_S)},
    )


def _of_anything(error: Exception) -> Problem:
    logger.error("a request failed", exc_info=error)
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the server's own fault; its log has the reason")


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
