"""What clients, the operator and faults did, and what they were answered: written down first, judged afterwards."""

import time
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from threading import Lock
from typing import Any

from lab.chaos.payload import Upload


class Outcome(StrEnum):
    """What a client knows of an attempt."""

    ACKNOWLEDGED = "acknowledged"
    """HTTP 202, or the command named a job"""
    REFUSED = "refused"
    """as something that cannot be loaded, so another attempt is of no use"""
    UNKNOWN = "unknown"
    """an error of the server, or no answer: it may have been taken or not"""


@dataclass(frozen=True)
class Attempt:
    """An upload that was sent once, and its answer."""

    upload: str
    begun_s: float
    """since 1970, as every time here"""
    ended_s: float
    outcome: Outcome
    detail: str
    job_id: int | None = None


@dataclass(frozen=True)
class Act:
    """What the operator asked for."""

    at_s: float
    action: str
    job_id: int
    detail: str


@dataclass
class Fault:
    """A fault that struck."""

    kind: str
    detail: str
    begun_s: float
    ended_s: float | None = None


@dataclass
class History:
    """Everything that happened, in the order in which it was known. Threads may add to it at the same time."""

    uploads: dict[str, Upload] = field(default_factory=dict)
    """by their names; each is here before it is sent"""
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
        """Record what the operator asked for."""
        with self.lock:
            self.acts.append(Act(time.time(), action, job_id, detail))

    def struck(self, kind: str) -> Fault:
        """Record a fault that begins; what it struck and when it ended is added to what this returns."""
        fault = Fault(kind, "", time.time())
        with self.lock:
            self.faults.append(fault)
        return fault

    def jobs(self) -> list[int]:
        """Return the acknowledged jobs, the latest last."""
        with self.lock:
            return list(dict.fromkeys(attempt.job_id for attempt in self.attempts if attempt.job_id is not None))

    def jobs_asked(self, action: str) -> list[int]:
        """Return the jobs for which the operator asked something."""
        with self.lock:
            return list(dict.fromkeys(act.job_id for act in self.acts if act.action == action))

    def outcomes(self) -> dict[str, Outcome]:
        """Return what the client knows of each upload in the end; once acknowledged, it stays so."""
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
