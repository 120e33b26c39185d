"""What the OpenAPI document tells of an upload beyond its parameters: a body that is streamed is none of a schema."""

from http import HTTPStatus
from typing import Any

from api.keys import KEY_MAX_LENGTH
from api.problems import CONTENT_TYPE
from api.uploads import CODINGS, CONTENT_TYPES

PROBLEMS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.LENGTH_REQUIRED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.INSUFFICIENT_STORAGE,
)
PROBLEM = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
    },
}
UPLOAD: dict[str, Any] = {
    "parameters": [
        {
            "in": "header",
            "name": "Idempotency-Key",
            "schema": {"type": "string", "maxLength": KEY_MAX_LENGTH},
            "description": "names this upload: sent once more, it gets the first one's job",
        },
        {"in": "header", "name": "Content-Encoding", "schema": {"enum": list(CODINGS)}},
    ],
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in CONTENT_TYPES},
    },
    "responses": {
        problem.value: {"description": problem.phrase, "content": {CONTENT_TYPE: {"schema": PROBLEM}}}
        for problem in PROBLEMS
    },
}
REJECTS: dict[str, Any] = {
    "responses": {
        200: {
            "description": "an object a line, with file, line, column, reason, detail and raw; for the rows of a batch "
            "that are counted and not listed, one with file, unlisted_rows and detail",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        }
    }
}
