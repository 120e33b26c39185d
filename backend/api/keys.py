"""Idempotency-Key: a repeated upload gets the job of the first one.

As in the IETF's draft-ietf-httpapi-idempotency-key-header, a key that is reused for a different upload is refused.
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
    """Return the value of the Idempotency-Key header, or None if it is absent.

    Raises:
        Problem: 422 if it is empty or too long.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 0 < len(key) <= KEY_MAX_LENGTH:
        detail = f"expected an Idempotency-Key of 1 to {KEY_MAX_LENGTH} characters, got {len(key)}"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    return key


def first_size_bytes(token: ApiToken, key: str | None) -> int | None:
    """Return the unpacked size of the first upload with a key, or None if there was none."""
    first = KeyedUpload.objects.filter(token=token, key=key) if key is not None else KeyedUpload.objects.none()
    size_bytes: int | None = first.aggregate(size=Sum("job__files__size_bytes"))["size"]
    return size_bytes


@dataclass(frozen=True)
class Upload:
    """What identifies an upload: its token, its key and its content."""

    token: ApiToken
    key: str | None
    fingerprint: bytes
    """SHA-256 of the query string, the content headers and the body; equal for repeated uploads"""

    @classmethod
    def of(cls, request: HttpRequest, token: ApiToken, key: str | None, body_sha256: bytes) -> "Upload":
        """Return the upload of a request; its body is known by its hash alone."""
        headers = (request.headers.get(name, "") for name in ("Content-Type", "Content-Encoding"))
        parts = (request.META["QUERY_STRING"], *headers)
        return cls(token, key, hashlib.sha256("\0".join(parts).encode() + body_sha256).digest())

    def get_or_create_job(self, create: Callable[[Callable[[IngestJob], None]], IngestJob]) -> tuple[int, bool]:
        """Create a job, unless this upload already has one.

        Args:
            create: creates the job, and calls its argument with the job in the same transaction.

        Returns:
            The job's id, and True if the job was created.

        Raises:
            Problem: 422 if the key was used for a different upload.
        """
        if (job_id := self._first_job()) is not None:
            return job_id, False
        try:
            return create(self._remember).pk, True
        except IntegrityError:  # a concurrent repetition of this upload recorded its job first
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
                f"Idempotency-Key {self.key!r} was already used for a different upload; use a new key",
            )
        return first.job_id if first else None
