"""Bearer tokens: RFC 6750. They are random and long, so a plain hash keeps them; nobody can guess at 256 bits."""

import hashlib
import secrets

from django.db import IntegrityError, transaction
from django.utils import timezone

from api.models import ApiToken

JOB_ID_MAX = 2**63 - 1  # of a bigint
PREFIX = "poolhouse_"  # so that a scanner for leaked secrets can know one


class TokenExistsError(Exception):
    """A name that has a valid token already."""


def create_token(name: str) -> str:
    """Make a token; it is shown this once.

    Raises:
        ValueError: the name is empty, or has a character that cannot be printed, as a line break.
        TokenExistsError: there is a valid one of that name.
    """
    if not name.strip() or not name.isprintable():
        raise ValueError(f"expected a name of printable characters, got {name!r}")
    token = PREFIX + secrets.token_urlsafe(32)
    try:
        with transaction.atomic():
            ApiToken.objects.create(name=name, digest=_digest(token))
    except IntegrityError:
        raise TokenExistsError(f"{name!r} has a token; revoke_token {name} makes room for another") from None
    return token


def revoke_token(name: str) -> bool:
    """Let the token of that name be valid no more; False if there is none."""
    return bool(ApiToken.objects.filter(name=name, revoked_at=None).update(revoked_at=timezone.now()))


def find_token(token: str) -> ApiToken | None:
    """Give the record of a valid token."""
    return ApiToken.objects.filter(digest=_digest(token), revoked_at=None).first()


def newest_jobs(token: ApiToken, *, limit: int, before: int | None = None) -> list[int]:
    """Return the numbers of the token's jobs, the newest first: those below `before`, at most `limit`."""
    jobs = token.jobs.filter(job_id__lt=JOB_ID_MAX if before is None else before)
    return list(jobs.order_by("-job_id").values_list("job_id", flat=True)[:limit])


def is_job_of(token: ApiToken, job_id: int) -> bool:
    """Return True if the token's upload made the job."""
    return job_id <= JOB_ID_MAX and token.jobs.filter(job_id=job_id).exists()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
