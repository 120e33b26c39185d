"""Bearer tokens (RFC 6750). A plain hash protects them well enough, because 256 random bits cannot be guessed."""

import hashlib
import secrets

from django.db import IntegrityError, transaction
from django.utils import timezone

from api.models import ApiToken

JOB_ID_MAX = 2**63 - 1  # of a bigint
PREFIX = "poolhouse_"  # lets scanners for leaked secrets recognise a token


class TokenExistsError(Exception):
    """The name already has a valid token."""


def create_token(name: str) -> str:
    """Create a token and return it; it cannot be read again later.

    Raises:
        ValueError: the name is empty, or has a character that cannot be printed, such as a line break.
        TokenExistsError: the name already has a valid token.
    """
    if not name.strip() or not name.isprintable():
        raise ValueError(f"expected a name of printable characters, got {name!r}")
    token = PREFIX + secrets.token_urlsafe(32)
    try:
        with transaction.atomic():
            ApiToken.objects.create(name=name, digest=_digest(token))
    except IntegrityError:
        raise TokenExistsError(
            f"{name!r} already has a valid token; run manage.py revoke_token {name} to replace it"
        ) from None
    return token


def revoke_token(name: str) -> bool:
    """Revoke the valid token of a name; return False if there is none."""
    return bool(ApiToken.objects.filter(name=name, revoked_at=None).update(revoked_at=timezone.now()))


def find_token(token: str) -> ApiToken | None:
    """Return the record of a token, or None if the token is not valid."""
    return ApiToken.objects.filter(digest=_digest(token), revoked_at=None).first()


def newest_jobs(token: ApiToken, *, limit: int, before: int | None = None) -> list[int]:
    """Return the ids of the token's jobs, newest first: those below `before`, at most `limit`."""
    jobs = token.jobs.filter(job_id__lt=JOB_ID_MAX if before is None else before)
    return list(jobs.order_by("-job_id").values_list("job_id", flat=True)[:limit])


def is_job_of(token: ApiToken, job_id: int) -> bool:
    """Return True if the job was created by an upload with the token."""
    return job_id <= JOB_ID_MAX and token.jobs.filter(job_id=job_id).exists()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
