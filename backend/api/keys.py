"""Idempotency-Key: an upload that is sent once more gets the first one's job.

As in the IETF's draft-ietf-httpapi-idempotency-key-header: a key that comes again with another upload is refused.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from django.db import IntegrityError
from django.db.models import Sum
from django.http import HttpRequest

from api.models import ApiToken, KeyedUpload, TokenJob
from api.problems import Problem
from telemetry.models import IngestJob

KEY_MAX_LENGTH = 255


def key_of(request: HttpRequest) -> str | None:
    """Read the header; None if there is none.

    Raises:
        Problem: 422, it is empty or too long.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 0 < len(key) <= KEY_MAX_LENGTH:
        detail = f"Idempotency-Key has {len(key)} characters; allowed: 1 to {KEY_MAX_LENGTH}"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    return key


def first_size_bytes(token: ApiToken, key: str | None) -> int | None:
    """Return the size, unpacked, of the upload that came with a key before; None if there was none."""
    first = KeyedUpload.objects.filter(token=token, key=key) if key is not None else KeyedUpload.objects.none()
    size_bytes: int | None = first.aggregate(size=Sum("job__files__size_bytes"))["size"]
    return size_bytes


@dataclass(frozen=True)
class Upload:
    """An upload, as its client names it."""

    token: ApiToken
    key: str | None
    fingerprint: bytes
    """tells it from other uploads"""

    @classmethod
    def of(cls, request: HttpRequest, token: ApiToken, key: str | None, body_sha256: bytes) -> "Upload":
        """Tell an upload from others by what is asked for, and by the body."""
        headers = (request.headers.get(name, "") for name in ("Content-Type", "Content-Encoding"))
        parts = (request.META["QUERY_STRING"], *headers)
        return cls(token, key, hashlib.sha256("\0".join(parts).encode() + body_sha256).digest())

    def once(self, create: Callable[[Callable[[IngestJob], None]], IngestJob]) -> tuple[int, bool]:
        """Create a job, unless this upload has one.

        Args:
            create: makes the job, and calls what it is given within the job's transaction.

        Returns:
            The job's number, and whether it is new.

        Raises:
            Problem: 422, the key came with another upload before.
        """
        if (job_id := self._first_job()) is not None:
            return job_id, False
        try:
            return create(self._remember).pk, True
        except IntegrityError:  # the same upload, at the same time, was quicker
            if (job_id := self._first_job()) is None:
                raise
            return job_id, False

    def _remember(self, job: IngestJob) -> None:
        TokenJob.objects.create(token=self.token, job=job)
        if self.key is not None:
            KeyedUpload.objects.create(token=self.token, key=self.key, fingerprint=self.fingerprint, job=job)

    def _first_job(self) -> int | None:
        if self.key is None:
            return None
        first = KeyedUpload.objects.filter(token=self.token, key=self.key).first()
        if first is not None and bytes(first.fingerprint) != self.fingerprint:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"Idempotency-Key {self.key!r} came with another upload before; a new upload needs a new key",
            )
        return first.job_id if first else None
