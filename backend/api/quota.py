"""Limits on uploads: the bytes of a token in the spool, and the number of uploads that a process receives at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from threading import Lock

from django.conf import settings

from api.models import ApiToken
from api.problems import Problem
from telemetry import rejects, spool

REMEASURE_BYTES = 64 << 20
RETRY_AFTER_S = 60
SLOT_RETRY_AFTER_S = 10


class Quota:
    """The bytes that an upload may still write: the token's quota minus its other inputs and its rejects in the spool.

    Rejects are measured when the upload begins. They are written even if they exceed the quota, because a batch cannot
    be loaded without them; the next upload is refused instead. The other inputs are measured when the upload begins,
    each time it has written REMEASURE_BYTES, and when its file is complete. Of two concurrent uploads, the one that is
    completed last includes the other, so recorded inputs never exceed the quota. Uploads in progress may exceed it by
    REMEASURE_BYTES each, or by the whole file in an object store, which lists a file only when it is complete.
    """

    def __init__(self, token: ApiToken) -> None:
        self.owner = str(token.pk)
        self._limit_bytes: int = settings.INGEST_TOKEN_SPOOL_BYTES
        self._rejects_bytes = self._others_bytes = self._own_bytes = self._unseen_bytes = 0

    def begin(self, declared_bytes: int) -> None:
        """Check the quota before the body is read.

        Raises:
            Problem: 413 if the body is larger than the quota, 507 if it does not fit beside the other inputs.
        """
        if declared_bytes > self._limit_bytes:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has {declared_bytes:,} bytes; a token may have at most {self._limit_bytes:,} bytes in the "
                "spool (INGEST_TOKEN_SPOOL_BYTES); split the upload",
            )
        self._rejects_bytes = rejects.used_bytes(self.owner)
        self._measure_others("")
        self._require(declared_bytes)

    def take(self, size_bytes: int, location: str) -> None:
        """Count bytes that are about to be written.

        Raises:
            Problem: 507 if they exceed the quota.
        """
        self._own_bytes += size_bytes
        self._unseen_bytes += size_bytes
        if self._unseen_bytes >= REMEASURE_BYTES:
            self._measure_others(location)
        self._require(self._own_bytes)

    def complete(self, location: str) -> None:
        """Check the quota again when the file is complete, before its job is recorded.

        Raises:
            Problem: 507 if the file exceeds the quota.
        """
        self._measure_others(location)
        self._require(self._own_bytes)

    def _measure_others(self, location: str) -> None:
        self._others_bytes = self._rejects_bytes + spool.used_bytes(self.owner, besides=location)
        self._unseen_bytes = 0

    def _require(self, size_bytes: int) -> None:
        if self._others_bytes + size_bytes <= self._limit_bytes:
            return
        raise Problem(
            HTTPStatus.INSUFFICIENT_STORAGE,
            f"this token's inputs and rejects have {self._others_bytes:,} bytes in the spool; with this upload they "
            f"would exceed {self._limit_bytes:,} bytes (INGEST_TOKEN_SPOOL_BYTES); try again when its jobs are done. "
            "Inputs of parked and cancelled jobs are kept until retry_ingest or clean_spool --parked-and-cancelled, "
            "rejects for INGEST_REJECTS_KEEP_S",
            headers={"Retry-After": str(RETRY_AFTER_S)},
            used_bytes=self._others_bytes,
            limit_bytes=self._limit_bytes,
        )


class Replay(Quota):
    """The quota of a repeated upload, whose file is removed as soon as its body has been compared.

    It may write as many bytes as the first upload in addition to the quota; a larger body is a different upload.
    Concurrent repetitions share the additional bytes.
    """

    def __init__(self, token: ApiToken, first_bytes: int) -> None:
        super().__init__(token)
        self._first_bytes = first_bytes
        self._limit_bytes += first_bytes

    def begin(self, declared_bytes: int) -> None:
        """Check the quota before the body is read, without its declared length, since it may be compressed.

        Raises:
            Problem: 507 if the quota is used up.
        """
        self._measure_others("")
        self._require(0)

    def _require(self, size_bytes: int) -> None:
        if size_bytes > self._first_bytes:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"Idempotency-Key was already used for a different upload of {self._first_bytes:,} bytes (unpacked); "
                "use a new key",
            )
        super()._require(size_bytes)


class UploadSlots:
    """Limits how many uploads this process receives at once, so that threads remain for other requests."""

    def __init__(self) -> None:
        self._lock, self._taken = Lock(), 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take a slot for the length of a block.

        Raises:
            Problem: 503 if all slots are taken.
        """
        with self._lock:
            if self._taken >= settings.INGEST_UPLOADS_AT_ONCE:
                raise self._refusal()
            self._taken += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken -= 1

    def _refusal(self) -> Problem:
        return Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"this process is already receiving {self._taken} uploads, the limit is {settings.INGEST_UPLOADS_AT_ONCE} "
            f"(WEB_UPLOAD_THREADS); try again in {SLOT_RETRY_AFTER_S} s",
            headers={"Retry-After": str(SLOT_RETRY_AFTER_S)},
        )


upload_slots = UploadSlots()
