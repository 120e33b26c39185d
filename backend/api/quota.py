"""How much of the spool a token's uploads and their rejects may take, and how many uploads a process takes at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from threading import Lock

from django.conf import settings

from api.models import ApiToken
from api.problems import Problem
from telemetry import rejects, spool

LOOK_BYTES = 64 << 20
RETRY_AFTER_S = 60
TURN_RETRY_AFTER_S = 10


class Quota:
    """What an upload may still write: the token's quota less what its other inputs and its rejects have in the spool.

    Rejects count as they are when the upload begins. They are written whatever the quota says, since without them no
    batch is loaded; then the next upload is refused. The other inputs are looked up when the upload begins, each
    time it has written LOOK_BYTES, and when its file is complete. Of two uploads at once the one that is completed last
    sees the other, so what is recorded never exceeds the quota. Those that are under way may exceed it by LOOK_BYTES
    each; in an object store, which shows a file when it is complete, by the whole file.
    """

    def __init__(self, token: ApiToken) -> None:
        self.owner = str(token.pk)
        self._limit_bytes: int = settings.INGEST_TOKEN_SPOOL_BYTES
        self._rejects_bytes = self._others_bytes = self._own_bytes = self._unseen_bytes = 0

    def begin(self, declared_bytes: int) -> None:
        """Look before the body is read.

        Raises:
            Problem: 413, the body is larger than the quota; 507.
        """
        if declared_bytes > self._limit_bytes:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has {declared_bytes:,} bytes; one token may have {self._limit_bytes:,} in the spool "
                "(INGEST_TOKEN_SPOOL_BYTES); divide it",
            )
        self._rejects_bytes = rejects.used_bytes(self.owner)
        self._look("")
        self._require(declared_bytes)

    def take(self, size_bytes: int, location: str) -> None:
        """Count what is about to be written.

        Raises:
            Problem: 507.
        """
        self._own_bytes += size_bytes
        self._unseen_bytes += size_bytes
        if self._unseen_bytes >= LOOK_BYTES:
            self._look(location)
        self._require(self._own_bytes)

    def complete(self, location: str) -> None:
        """Look once more when the file is complete, before its job is recorded.

        Raises:
            Problem: 507.
        """
        self._look(location)
        self._require(self._own_bytes)

    def _look(self, location: str) -> None:
        self._others_bytes = self._rejects_bytes + spool.used_bytes(self.owner, besides=location)
        self._unseen_bytes = 0

    def _require(self, size_bytes: int) -> None:
        if self._others_bytes + size_bytes <= self._limit_bytes:
            return
        raise Problem(
            HTTPStatus.INSUFFICIENT_STORAGE,
            f"the inputs of this token have {self._others_bytes:,} bytes in the spool, its rejects included; allowed "
            f"with this upload: {self._limit_bytes:,} (INGEST_TOKEN_SPOOL_BYTES); try again when its jobs are done. "
            "Inputs of parked and cancelled jobs stay until retry_ingest or clean_spool --parked-and-cancelled, "
            "rejects for INGEST_REJECTS_KEEP_S",
            headers={"Retry-After": str(RETRY_AFTER_S)},
            used_bytes=self._others_bytes,
            limit_bytes=self._limit_bytes,
        )


class Replay(Quota):
    """Of an upload whose key is known: it may write what the first one had, beside the quota, as its file goes at once.

    More than that is another upload. Several at once share what is beside the quota.
    """

    def __init__(self, token: ApiToken, first_bytes: int) -> None:
        super().__init__(token)
        self._first_bytes = first_bytes
        self._limit_bytes += first_bytes

    def begin(self, declared_bytes: int) -> None:
        """Look before the body is read; its length may be that of a compressed one, and tells nothing of the first's.

        Raises:
            Problem: 507.
        """
        self._look("")
        self._require(0)

    def _require(self, size_bytes: int) -> None:
        if size_bytes > self._first_bytes:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"Idempotency-Key came with another upload before, which had {self._first_bytes:,} bytes, unpacked; "
                "a new upload needs a new key",
            )
        super()._require(size_bytes)


class Turns:
    """How many uploads this process has taken; the other threads are left to other requests."""

    def __init__(self) -> None:
        self._lock, self._taken = Lock(), 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take a turn for the length of a block.

        Raises:
            Problem: 503, there is none.
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
            f"{self._taken} uploads are under way in this process, allowed: {settings.INGEST_UPLOADS_AT_ONCE} "
            f"(WEB_UPLOAD_THREADS); try again in {TURN_RETRY_AFTER_S} s",
            headers={"Retry-After": str(TURN_RETRY_AFTER_S)},
        )


turns = Turns()
