"""The views under /api/."""

import json
import logging
import math
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import reverse
from ninja import NinjaAPI, Query, Schema, Status
from ninja.security import HttpBearer

from api import keys, openapi
from api.models import ApiToken
from api.problems import Problem, answer_with_problems
from api.quota import Quota, Replay, upload_slots
from api.schemas import PARKED_BATCHES_MAX, JobDetails, Jobs, PageOfJobs, Parameters
from api.tokens import find_token, is_job_of, newest_jobs
from api.uploads import declared, receive
from poolhouse import __version__
from telemetry import queries, rejects
from telemetry.formats import Columns
from telemetry.inputs import InputFile, Inputs
from telemetry.intake import BrokerUnavailableError, adopt_input, announce, create_job, has_unsent_batches
from telemetry.models import IngestJob
from telemetry.queries import Progress

logger = logging.getLogger(__name__)

RETRY_AFTER_MAX_S = 600


class Bearer(HttpBearer):
    """A token that `manage.py create_token` created."""

    def authenticate(self, request: HttpRequest, token: str) -> ApiToken | None:
        """Return the token's record, which Ninja stores as `request.auth`."""
        return find_token(token)


api = NinjaAPI(
    title="Poolhouse",
    version=__version__,
    description="Bulk ingest of time series: upload a file, then follow the progress of its job.",
    auth=Bearer(),
    urls_namespace="api",
)
answer_with_problems(api)


@api.post("/ingest", response={202: JobDetails}, include_in_schema=False, url_name="ingest-without-slash")
@api.post("/ingest/", response={202: JobDetails}, openapi_extra=openapi.UPLOAD, summary="Upload a file to load")
def ingest(request: HttpRequest, parameters: Query[Parameters], response: HttpResponse) -> Status[dict[str, Any]]:
    """Store the body and record a job that loads it; the Location header has the job's address."""
    token = _token(request)
    _require_known(request, Parameters)
    body = declared(request)
    columns = _columns(parameters, body.charset)
    key = keys.key_of(request)
    first_bytes = keys.first_size_bytes(token, key)
    if first_bytes is None:
        _require_room()
    quota = Quota(token) if first_bytes is None else Replay(token, first_bytes)
    with upload_slots.taken():
        connection.close()  # check it in: an upload may take minutes and does not use the database
        received = receive(request, body, quota)
        upload = keys.Upload.of(request, token, key, received.sha256)
        with Inputs([InputFile(parameters.name, received.location, body.written.format)]) as inputs:
            job_id, is_new = upload.get_or_create_job(partial(_create_job, inputs, columns, parameters))
            if not is_new:
                response.headers["Idempotent-Replayed"] = "true"
            is_taken = is_new or adopt_input(job_id, inputs)
    if not is_taken:
        inputs.discard()
    details = _details(job_id)
    if has_unsent_batches(job_id):  # of a new job, or of one whose upload was interrupted before the announcement
        connection.close()  # check it in: connecting to the broker may take long
        _announce(job_id)
    response.headers["Location"] = reverse("api:job", args=[job_id])
    return Status(202, details)


@api.get(
    "/jobs/",
    response=Jobs,
    url_name="jobs",
    openapi_extra=openapi.JOBS,
    summary="List the token's jobs, newest first",
)
def list_jobs(request: HttpRequest, page: Query[PageOfJobs]) -> dict[str, Any]:
    """Return a page of the token's jobs."""
    _require_known(request, PageOfJobs)
    found = queries.progress_of(newest_jobs(_token(request), limit=page.limit, before=page.before))
    is_full = len(found) == page.limit
    older = f"{reverse('api:jobs')}?limit={page.limit}&before={found[-1].job_id}" if is_full else None
    return {"jobs": [{**_links(job), **queries.progress_document(job)} for job in found], "next": older}


@api.get("/jobs/{int:job_id}/", response=JobDetails, url_name="job", openapi_extra=openapi.JOB, summary="Show a job")
def show_job(request: HttpRequest, job_id: int) -> dict[str, Any]:
    """Return a job's progress, warnings and errors."""
    return _details(_own(request, job_id))


@api.get(
    "/jobs/{int:job_id}/rejects/",
    response={200: None},
    url_name="rejects",
    openapi_extra=openapi.REJECTS,
    summary="List a job's rejected rows",
)
def list_rejects(request: HttpRequest, job_id: int) -> StreamingHttpResponse:
    """Return a job's rejected rows as NDJSON."""
    found = rejects.read(_own(request, job_id))
    connection.close()  # check it in: the rows are read from the spool
    lines = (f"{json.dumps(reject, ensure_ascii=False)}\n".encode() for reject in found)
    return StreamingHttpResponse(lines, content_type="application/x-ndjson")


def _create_job(
    inputs: Inputs, columns: Columns, parameters: Parameters, also: Callable[[IngestJob], None]
) -> IngestJob:
    connection.close()  # check it in: a large file is read through before its job is recorded
    return create_job(
        inputs,
        columns,
        batch_rows=parameters.batch_rows,
        on_conflict=parameters.on_conflict,
        reject_limit=parameters.max_rejects,
        max_batches=settings.INGEST_MAX_UNFINISHED_BATCHES,
        also=also,
    )


def _announce(job_id: int) -> None:
    try:
        announce(job_id)
    except BrokerUnavailableError as error:  # the job is recorded, so the upload is accepted anyway
        logger.warning("%s", error)


def _require_known(request: HttpRequest, parameters: type[Schema]) -> None:
    """Refuse unknown parameters, such as misspelt ones, instead of ignoring them.

    Raises:
        Problem: 422 if a parameter is unknown.
    """
    if unknown := [name for name in request.GET if name not in parameters.model_fields]:
        allowed = ", ".join(parameters.model_fields)
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"unknown parameter {unknown[0]!r}; allowed: {allowed}")


def _columns(parameters: Parameters, charset: str | None) -> Columns:
    try:
        return parameters.columns(charset)
    except ValueError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None


def _require_room() -> None:
    """Refuse an upload while too many batches wait; Retry-After is estimated from the rate of the last minute.

    Raises:
        Problem: 429 if INGEST_MAX_UNFINISHED_BATCHES or more wait.
    """
    limit = settings.INGEST_MAX_UNFINISHED_BATCHES
    backlog = queries.backlog()
    if wait_s := backlog.wait_s(limit):
        retry_after_s = math.ceil(min(wait_s, RETRY_AFTER_MAX_S))
        raise Problem(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"{backlog.batches:,} batches are waiting to be loaded, the limit is {limit:,} "
            f"(INGEST_MAX_UNFINISHED_BATCHES); try again in {retry_after_s} s",
            headers={"Retry-After": str(retry_after_s)},
        )


def _token(request: HttpRequest) -> ApiToken:
    token: ApiToken = request.auth  # type: ignore[attr-defined]
    return token


def _own(request: HttpRequest, job_id: int) -> int:
    """Return the job's id if the job belongs to the token.

    Raises:
        Http404: it belongs to another token or does not exist; the answer is the same in both cases.
    """
    if not is_job_of(_token(request), job_id):
        raise _no_job(job_id)
    return job_id


def _details(job_id: int) -> dict[str, Any]:
    progress = queries.job_progress(job_id)
    if progress is None:
        raise _no_job(job_id)
    return {**_links(progress), **queries.job_document(progress, parked_limit=PARKED_BATCHES_MAX)}


def _no_job(job_id: int) -> Http404:
    return Http404(f"this token has no job {job_id}; GET {reverse('api:jobs')} lists its jobs")


def _links(progress: Progress) -> dict[str, str]:
    return {
        "url": reverse("api:job", args=[progress.job_id]),
        "rejects_url": reverse("api:rejects", args=[progress.job_id]),
    }
