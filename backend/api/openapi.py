"""The parts of the OpenAPI document that cannot be derived from the views: streamed bodies, headers and problems."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from api.keys import KEY_MAX_LENGTH
from api.problems import CONTENT_TYPE
from api.uploads import CODINGS, CONTENT_TYPES

# The errors of every request: of its request line and headers, its token, its parameters, and of the server.
OF_ALL = (400, 401, 408, 414, 422, 431, 500, 503)
OF_A_JOB = (*OF_ALL, 404)
OF_AN_UPLOAD = (*OF_ALL, 411, 413, 415, 429, 507)
PROBLEM = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail"],
}


def _problems(statuses: Iterable[int]) -> dict[int, dict[str, Any]]:
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {CONTENT_TYPE: {"schema": PROBLEM}}}
        for status in sorted(statuses)
    }


UPLOAD: dict[str, Any] = {
    "parameters": [
        {
            "in": "header",
            "name": "Idempotency-Key",
            "schema": {"type": "string", "minLength": 1, "maxLength": KEY_MAX_LENGTH},
            "description": "identifies this upload: a repeated upload with the same key gets the job of the first one",
        },
        {"in": "header", "name": "Content-Encoding", "schema": {"enum": list(CODINGS)}},
    ],
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in CONTENT_TYPES},
    },
    "responses": _problems(OF_AN_UPLOAD),
}
JOBS: dict[str, Any] = {"responses": _problems(OF_ALL)}
JOB: dict[str, Any] = {"responses": _problems(OF_A_JOB)}
REJECTS: dict[str, Any] = {
    "responses": {
        **_problems(OF_A_JOB),
        200: {
            "description": "one JSON object per rejected row, with file, line, column, reason, detail and raw; one "
            "object per batch whose rows are not all listed, with file, unlisted_rows and detail",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        },
    }
}
