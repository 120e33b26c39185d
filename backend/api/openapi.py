"""What the OpenAPI document tells of an upload beyond its parameters: a body that is streamed is none of a schema."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from api.keys import KEY_MAX_LENGTH
from api.problems import CONTENT_TYPE
from api.uploads import CODINGS, CONTENT_TYPES

# Of every request: its line and header, its token, its parameters, and the state of the server.
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
            "description": "names this upload: sent once more, it gets the first one's job",
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
            "description": "an object a line, with file, line, column, reason, detail and raw; for the rows of a batch "
            "that are counted and not listed, one with file, unlisted_rows and detail",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        },
    }
}
