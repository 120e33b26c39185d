"""What clients, the operator and faults did, and the answers: recorded first, checked afterwards."""

import time
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from threading import Lock
from typing import Any

from lab.chaos.payload import Upload


class Outcome(StrEnum):
    """What a client knows about an attempt."""

    ACKNOWLEDGED = "acknowledged"
    """the answer was HTTP 202, or the command named a job"""
    REFUSED = "refused"
    """the answer was that the upload cannot be loaded, so it is not sent again"""
    UNKNOWN = "unknown"
    """an error of the server or no answer: the upload may have been accepted or not"""


@dataclass(frozen=True)
class Attempt:
    """One attempt to send an upload, and the answer."""

    upload: str
    begun_s: float
    """seconds since 1970, like all times here"""
    ended_s: float
    outcome: Outcome
    detail: str
    job_id: int | None = None


@dataclass(frozen=True)
class Act:
    """A request of the operator."""

    at_s: float
    action: str
    job_id: int
    detail: str


@dataclass
class Fault:
    """A fault that was injected."""

    kind: str
    detail: str
    begun_s: float
    ended_s: float | None = None


@dataclass
class History:
    """All events in the order in which they were recorded. Several threads may add to it."""

    uploads: dict[str, Upload] = field(default_factory=dict)
    """by name; an upload is added before it is sent"""
    attempts: list[Attempt] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def begin(self, upload: Upload) -> None:
        """Record an upload before its first attempt."""
        with self.lock:
            self.uploads[upload.name] = upload

    def attempted(self, attempt: Attempt) -> None:
        """Record an attempt and its answer."""
        with self.lock:
            self.attempts.append(attempt)

    def acted(self, action: str, job_id: int, detail: str) -> None:
        """Record a request of the operator."""
        with self.lock:
            self.acts.append(Act(time.time(), action, job_id, detail))

    def struck(self, kind: str) -> Fault:
        """Record the begin of a fault; the caller adds its detail and its end to the returned object."""
        fault = Fault(kind, "", time.time())
        with self.lock:
            self.faults.append(fault)
        return fault

    def jobs(self) -> list[int]:
        """Return the acknowledged jobs, the latest last."""
        with self.lock:
            return list(dict.fromkeys(attempt.job_id for attempt in self.attempts if attempt.job_id is not None))

    def jobs_asked(self, action: str) -> list[int]:
        """Return the jobs for which the operator requested an action."""
        with self.lock:
            return list(dict.fromkeys(act.job_id for act in self.acts if act.action == action))

    def outcomes(self) -> dict[str, Outcome]:
        """Return the final outcome of each upload; an acknowledged upload stays acknowledged."""
        with self.lock:
            known = dict.fromkeys(self.uploads, Outcome.UNKNOWN)
            for attempt in self.attempts:
                if known[attempt.upload] is not Outcome.ACKNOWLEDGED:
                    known[attempt.upload] = attempt.outcome
            return known

    def document(self) -> dict[str, Any]:
        """Return it as JSON data."""
        with self.lock:
            return {name: [asdict(event) for event in getattr(self, name)] for name in ("attempts", "acts", "faults")}
